/*---
id          = "rd_voltage_loss"
kind        = "alert"
title       = "Voltage of a phase lost while current flows"
title_zh    = "失压(有电流而电压丢失)"
severity    = "critical"
entity      = ["meter_id", "phase"]
category    = "integrity"
unit        = "V"
standard    = "DL/T 698.45-2017"
clause      = "event object 3000 (voltage loss); the thresholds are internal"
owner       = "metering"
description = """
Fires when a phase of the meter has less than `loss_pct` of nominal voltage and more than `current_pct` of the rated
current: the load is supplied, but the meter does not see its voltage, and that energy is not counted (a blown fuse or an
open link in the voltage circuit, or tampering). A value equal to a limit does not fire.
Resolves when the phase has `recovery_pct` or more; in between, or with a value missing, it stays as it is.
Phases and nominal voltage come from `meters`, the rated current from `meter_installations` (see rd_phases).
Not seen: a loss while no current flows (see rd_phase_missing), and one that ended before the next reading.
"""
params      = { loss_pct = 78.0, recovery_pct = 85.0, current_pct = 0.5 }
---*/
SELECT
    meter_id,
    phase,
    ts,
    CASE
        WHEN voltage_v < limit_low AND current_a > limit_a THEN true
        WHEN voltage_v >= recovery_v THEN false
    END AS firing,
    voltage_v AS measured,
    limit_low,
    'V' AS unit,
    current_a,
    limit_a,
    nominal_v
FROM (
    SELECT
        *,
        CAST(nominal_v * $loss_pct / 100 AS DECIMAL(18, 6)) AS limit_low,
        CAST(nominal_v * $recovery_pct / 100 AS DECIMAL(18, 6)) AS recovery_v,
        CAST(rated_a * $current_pct / 100 AS DECIMAL(18, 6)) AS limit_a
    FROM rd_phases
) p
WHERE voltage_v IS NOT NULL
