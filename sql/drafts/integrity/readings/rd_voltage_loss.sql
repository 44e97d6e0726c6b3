/*---
id          = "rd_voltage_loss"
kind        = "alert"
title       = "Voltage of a phase lost while current flows"
severity    = "critical"
entity      = "meter_id"
category    = "integrity"
unit        = "V"
standard    = "internal"
owner       = "metering"
description = """
Fires when a phase of the meter has less than `loss_pct` of nominal voltage and more than `current_a` of current: the
load is supplied, but the meter does not see its voltage, and that energy is not counted (a blown fuse or an open link
in the voltage circuit, or tampering). `lost_phases` names them, `measured` is the lowest voltage of these.
Resolves when all phases of the meter have `recovery_pct` or more; in between, or with a voltage missing, it stays as it is.
Phases and nominal voltage come from `meters` as of the reading. `current_a` is 0.5 % of the rated current, here of 5 A.
Not seen: a loss while no current flows (see rd_phase_missing), and one that ended before the next reading.
"""
params      = { loss_pct = 78.0, recovery_pct = 85.0, current_a = 0.025 }
---*/
SELECT
    meter_id,
    ts,
    CASE
        WHEN lost_a OR lost_b OR lost_c THEN true
        WHEN good_a AND good_b AND good_c THEN false
    END AS firing,
    CASE
        WHEN lost_a OR lost_b OR lost_c THEN
            least(CASE WHEN lost_a THEN u_a END, CASE WHEN lost_b THEN u_b END, CASE WHEN lost_c THEN u_c END)
        ELSE least(u_a, u_b, u_c)
    END AS measured,
    limit_low,
    'V' AS unit,
    concat(
        CASE WHEN lost_a THEN 'a' ELSE '' END,
        CASE WHEN lost_b THEN 'b' ELSE '' END,
        CASE WHEN lost_c THEN 'c' ELSE '' END
    ) AS lost_phases
FROM (
    SELECT
        meter_id,
        ts,
        u_a,
        u_b,
        u_c,
        limit_low,
        coalesce(u_a < limit_low AND i_a > $current_a, false) AS lost_a,
        coalesce(u_b < limit_low AND i_b > $current_a, false) AS lost_b,
        coalesce(u_c < limit_low AND i_c > $current_a, false) AS lost_c,
        coalesce(u_a >= recovery_v, strpos(phases, 'a') = 0) AS good_a,
        coalesce(u_b >= recovery_v, strpos(phases, 'b') = 0) AS good_b,
        coalesce(u_c >= recovery_v, strpos(phases, 'c') = 0) AS good_c
    FROM (
        SELECT
            r.meter_id,
            r.ts,
            m.phases,
            CASE WHEN strpos(m.phases, 'a') > 0 THEN TRY_CAST(r.u_a_v AS DECIMAL(12, 6)) END AS u_a,
            CASE WHEN strpos(m.phases, 'b') > 0 THEN TRY_CAST(r.u_b_v AS DECIMAL(12, 6)) END AS u_b,
            CASE WHEN strpos(m.phases, 'c') > 0 THEN TRY_CAST(r.u_c_v AS DECIMAL(12, 6)) END AS u_c,
            TRY_CAST(r.i_a_a AS DECIMAL(12, 6)) AS i_a,
            TRY_CAST(r.i_b_a AS DECIMAL(12, 6)) AS i_b,
            TRY_CAST(r.i_c_a AS DECIMAL(12, 6)) AS i_c,
            CAST(TRY_CAST(m.nominal_v AS DECIMAL(9, 3)) * $loss_pct / 100 AS DECIMAL(15, 6)) AS limit_low,
            CAST(TRY_CAST(m.nominal_v AS DECIMAL(9, 3)) * $recovery_pct / 100 AS DECIMAL(15, 6)) AS recovery_v
        FROM meter_readings r
        JOIN meters m ON m.meter_id = r.meter_id
    ) v
    WHERE u_a IS NOT NULL OR u_b IS NOT NULL OR u_c IS NOT NULL
) c
