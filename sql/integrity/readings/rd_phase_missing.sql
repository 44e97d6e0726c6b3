/*---
id          = "rd_phase_missing"
kind        = "alert"
title       = "Phase of a three-phase meter is dead while another has voltage"
title_zh    = "断相(三相表一相无电)"
severity    = "critical"
entity      = ["meter_id", "phase"]
category    = "integrity"
unit        = "V"
standard    = "DL/T 698.45-2017"
clause      = "event object 3003 (phase failure); the thresholds are internal"
owner       = "metering"
description = """
Fires when a phase of a three-phase four-wire meter has less than `dead_pct` of nominal voltage and less than
`current_pct` of the rated current while another has at least `live_pct`: a conductor or a fuse is open. All phases dead
is an outage and says nothing here. Resolves when the phase has `live_pct` or more; in between, or with a value missing,
it stays as it is. Only meters with all of `abc` in `meters` are judged, as of the reading; voltages are those to
neutral.
With current on the dead phase, see rd_voltage_loss.
Not seen: a dead phase whose current was not read, one fed back by motors above `dead_pct`, three-wire meters.
"""
params      = { dead_pct = 60.0, live_pct = 85.0, current_pct = 0.5 }
---*/
SELECT
    meter_id,
    phase,
    ts,
    CASE
        WHEN voltage_v < limit_low AND current_a < limit_a AND highest_v >= live_v THEN true
        WHEN voltage_v >= live_v THEN false
    END AS firing,
    voltage_v AS measured,
    limit_low,
    'V' AS unit,
    current_a,
    highest_v,
    nominal_v
FROM (
    SELECT
        *,
        CAST(nominal_v * $dead_pct / 100 AS DECIMAL(18, 6)) AS limit_low,
        CAST(nominal_v * $live_pct / 100 AS DECIMAL(18, 6)) AS live_v,
        CAST(rated_a * $current_pct / 100 AS DECIMAL(18, 6)) AS limit_a
    FROM rd_phases
    WHERE strpos(phases, 'a') > 0 AND strpos(phases, 'b') > 0 AND strpos(phases, 'c') > 0
) p
WHERE voltage_v IS NOT NULL
