/*---
id          = "rd_register_rollover"
kind        = "alert"
title       = "Import register rolled over"
severity    = "info"
entity      = "meter_id"
category    = "integrity"
unit        = "kWh"
standard    = "internal"
owner       = "metering"
description = """
Each rollover is one occurrence: the previous reading of the meter stood in the last tenth of the register, this one
stands in the first. `used_kwh` is the energy across the step, `range_kwh` less the old value plus the new one. It is no
fault, but whoever subtracts two readings across this instant must add `range_kwh`, the value at which the register
starts again from zero (1,000,000 for six digits before the point).
A meter exchange or a reset to zero near the end of the register looks the same; compare `used_kwh` with its usual energy.
Not seen: a rollover during a silence in which the register left its first tenth again, and the other registers.
"""
params      = { range_kwh = 1000000 }
---*/
SELECT
    meter_id,
    ts,
    register_kwh AS measured,
    'kWh' AS unit,
    previous_kwh,
    previous_ts,
    CAST(register_kwh + $range_kwh - previous_kwh AS DECIMAL(24, 4)) AS used_kwh
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
WHERE ts > previous_ts
    AND previous_kwh > 0.9 * $range_kwh
    AND previous_kwh < $range_kwh
    AND register_kwh >= 0
    AND register_kwh < 0.1 * $range_kwh
