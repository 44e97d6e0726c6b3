/*---
id            = "rd_register_rollback"
kind          = "alert"
title         = "Import register lower than at the reading before"
severity      = "critical"
entity        = "meter_id"
category      = "integrity"
unit          = "kWh"
standard      = "internal"
owner         = "metering"
resolve_after = 4
description   = """
Fires when the register of imported energy stands lower than at the previous reading of the meter by more than half of
`resolution_kwh`, and the step is no rollover (see rd_register_rollover). A register that went back was reset, exchanged,
mistransmitted or tampered with, and every bill across the step is wrong. Resolves after four readings in order.
`range_kwh` is the value at which the register starts again from zero: 1,000,000 for six digits before the point.
Readings without a register value are passed over, and a second reading of one instant is not judged (see rd_duplicate).
Not seen: the other registers, and a register that went back and passed its old value between two readings.
"""
params        = { resolution_kwh = 0.01, range_kwh = 1000000 }
---*/
SELECT
    meter_id,
    ts,
    CASE
        WHEN ts > previous_ts THEN
            register_kwh < previous_kwh - $resolution_kwh / 2
            AND NOT (
                previous_kwh > 0.9 * $range_kwh
                AND previous_kwh < $range_kwh
                AND register_kwh >= 0
                AND register_kwh < 0.1 * $range_kwh
            )
    END AS firing,
    register_kwh AS measured,
    CAST(previous_kwh - $resolution_kwh / 2 AS DECIMAL(24, 6)) AS limit_low,
    'kWh' AS unit,
    previous_kwh,
    previous_ts
FROM (
    SELECT
        meter_id,
        ts,
        energy_imp_kwh AS register_kwh,
        lag(energy_imp_kwh) OVER (PARTITION BY meter_id ORDER BY ts) AS previous_kwh,
        lag(ts) OVER (PARTITION BY meter_id ORDER BY ts) AS previous_ts
    FROM meter_readings
    WHERE energy_imp_kwh IS NOT NULL
) r
WHERE previous_kwh IS NOT NULL
