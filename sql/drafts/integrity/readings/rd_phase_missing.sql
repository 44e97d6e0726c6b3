/*---
id          = "rd_phase_missing"
kind        = "alert"
title       = "Phase of a three-phase meter is dead while another has voltage"
severity    = "critical"
entity      = "meter_id"
category    = "integrity"
unit        = "V"
standard    = "internal"
owner       = "metering"
description = """
Fires when a phase of a three-phase four-wire meter has less than `dead_pct` of nominal voltage and less than
`current_a` of current while another has at least `live_pct`: a conductor or a fuse is open. All phases dead is an
outage and says nothing here. `missing_phases` names them, `measured` is the lowest voltage of these.
Resolves when all three phases have `live_pct` or more; in between, or with a value missing, it stays as it is.
Only meters with all of `abc` in `meters` are judged, as of the reading; voltages are those to neutral. `current_a` is
0.5 % of the rated current, here of 5 A. With current on the dead phase, see rd_voltage_loss.
Not seen: a dead phase whose current was not read, one fed back by motors above `dead_pct`, three-wire meters.
"""
params      = { dead_pct = 60.0, live_pct = 85.0, current_a = 0.025 }
---*/
SELECT
    meter_id,
    ts,
    CASE
        WHEN highest_v >= live_v AND (dead_a OR dead_b OR dead_c) THEN true
        WHEN u_a >= live_v AND u_b >= live_v AND u_c >= live_v THEN false
    END AS firing,
    CASE
        WHEN dead_a OR dead_b OR dead_c THEN
            least(CASE WHEN dead_a THEN u_a END, CASE WHEN dead_b THEN u_b END, CASE WHEN dead_c THEN u_c END)
        ELSE least(u_a, u_b, u_c)
    END AS measured,
    limit_low,
    'V' AS unit,
    concat(
        CASE WHEN dead_a THEN 'a' ELSE '' END,
        CASE WHEN dead_b THEN 'b' ELSE '' END,
        CASE WHEN dead_c THEN 'c' ELSE '' END
    ) AS missing_phases
FROM (
    SELECT
        meter_id,
        ts,
        u_a,
        u_b,
        u_c,
        limit_low,
        live_v,
        greatest(u_a, u_b, u_c) AS highest_v,
        coalesce(u_a < limit_low AND i_a < $current_a, false) AS dead_a,
        coalesce(u_b < limit_low AND i_b < $current_a, false) AS dead_b,
        coalesce(u_c < limit_low AND i_c < $current_a, false) AS dead_c
    FROM (
        SELECT
            r.meter_id,
            r.ts,
            TRY_CAST(r.u_a_v AS DECIMAL(12, 6)) AS u_a,
            TRY_CAST(r.u_b_v AS DECIMAL(12, 6)) AS u_b,
            TRY_CAST(r.u_c_v AS DECIMAL(12, 6)) AS u_c,
            TRY_CAST(r.i_a_a AS DECIMAL(12, 6)) AS i_a,
            TRY_CAST(r.i_b_a AS DECIMAL(12, 6)) AS i_b,
            TRY_CAST(r.i_c_a AS DECIMAL(12, 6)) AS i_c,
            CAST(TRY_CAST(m.nominal_v AS DECIMAL(9, 3)) * $dead_pct / 100 AS DECIMAL(15, 6)) AS limit_low,
            CAST(TRY_CAST(m.nominal_v AS DECIMAL(9, 3)) * $live_pct / 100 AS DECIMAL(15, 6)) AS live_v
        FROM meter_readings r
        JOIN meters m ON m.meter_id = r.meter_id
        WHERE strpos(m.phases, 'a') > 0 AND strpos(m.phases, 'b') > 0 AND strpos(m.phases, 'c') > 0
    ) v
    WHERE u_a IS NOT NULL OR u_b IS NOT NULL OR u_c IS NOT NULL
) c
