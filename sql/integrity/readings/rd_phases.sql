/*---
id          = "rd_phases"
kind        = "view"
title       = "Voltage, current and power of each phase of a reading, one row a phase"
title_zh    = "分相电压、电流、功率"
category    = "integrity"
entity      = ["meter_id", "phase"]
standard    = "internal"
owner       = "metering"
description = """
Puts the phases of a reading under each other, as exact decimals, with what the registry says of the meter at that time:
its phases, nominal phase voltage and kind from `meters`, its rated and maximum current from `meter_installations`. Where
that has no row, the rated current is the parameter, the maximum current is not known (NULL). Phases that the meter does
not have are left out. `highest_v` is the highest voltage of the reading, `other_a` the largest current of the other
phases. Where a reading has no power of single phases, its total power is a row of the phase `total`. Meters that are
not in `meters` have no rows.
"""
params      = { rated_a = 5.0 }
---*/
SELECT
    meter_id,
    ts,
    phase,
    CASE WHEN phase = 'a' THEN u_a WHEN phase = 'b' THEN u_b WHEN phase = 'c' THEN u_c END AS voltage_v,
    CASE WHEN phase = 'a' THEN i_a WHEN phase = 'b' THEN i_b WHEN phase = 'c' THEN i_c END AS current_a,
    CASE
        WHEN phase = 'a' THEN p_a
        WHEN phase = 'b' THEN p_b
        WHEN phase = 'c' THEN p_c
        WHEN coalesce(p_a, p_b, p_c) IS NULL THEN p_total
    END AS power_kw,
    greatest(u_a, u_b, u_c) AS highest_v,
    CASE
        WHEN phase = 'a' THEN greatest(i_b, i_c)
        WHEN phase = 'b' THEN greatest(i_a, i_c)
        WHEN phase = 'c' THEN greatest(i_a, i_b)
    END AS other_a,
    phases,
    kind,
    nominal_v,
    rated_a,
    max_a
FROM (
    SELECT *, unnest(['a', 'b', 'c', 'total']) AS phase
    FROM (
        SELECT
            r.meter_id,
            r.ts,
            CASE WHEN strpos(m.phases, 'a') > 0 THEN TRY_CAST(r.u_a_v AS DECIMAL(12, 6)) END AS u_a,
            CASE WHEN strpos(m.phases, 'b') > 0 THEN TRY_CAST(r.u_b_v AS DECIMAL(12, 6)) END AS u_b,
            CASE WHEN strpos(m.phases, 'c') > 0 THEN TRY_CAST(r.u_c_v AS DECIMAL(12, 6)) END AS u_c,
            CASE WHEN strpos(m.phases, 'a') > 0 THEN abs(TRY_CAST(r.i_a_a AS DECIMAL(12, 6))) END AS i_a,
            CASE WHEN strpos(m.phases, 'b') > 0 THEN abs(TRY_CAST(r.i_b_a AS DECIMAL(12, 6))) END AS i_b,
            CASE WHEN strpos(m.phases, 'c') > 0 THEN abs(TRY_CAST(r.i_c_a AS DECIMAL(12, 6))) END AS i_c,
            CASE WHEN strpos(m.phases, 'a') > 0 THEN TRY_CAST(r.p_a_kw AS DECIMAL(15, 6)) END AS p_a,
            CASE WHEN strpos(m.phases, 'b') > 0 THEN TRY_CAST(r.p_b_kw AS DECIMAL(15, 6)) END AS p_b,
            CASE WHEN strpos(m.phases, 'c') > 0 THEN TRY_CAST(r.p_c_kw AS DECIMAL(15, 6)) END AS p_c,
            TRY_CAST(r.p_kw AS DECIMAL(15, 6)) AS p_total,
            m.phases,
            m.kind,
            TRY_CAST(m.nominal_v AS DECIMAL(12, 3)) AS nominal_v,
            coalesce(TRY_CAST(i.rated_a AS DECIMAL(12, 3)), $rated_a) AS rated_a,
            TRY_CAST(i.max_a AS DECIMAL(12, 3)) AS max_a
        FROM meter_readings r
        JOIN meters m ON m.meter_id = r.meter_id
        LEFT JOIN meter_installations i ON i.meter_id = r.meter_id
    ) v
) p
WHERE phase = 'total' OR strpos(phases, phase) > 0
