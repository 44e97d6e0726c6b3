/*---
id          = "dv_battery_low"
kind        = "alert"
title       = "Battery voltage of the device below its limit"
title_zh    = "设备电池电压低"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "V"
standard    = "internal"
owner       = "operations"
description = """
Judges `battery_v` against `limit_low`, in millivolts, of the row `battery_mv` of the device in the reference table
`device_limits` that is valid at the time of the sample: opens with the first sample below, resolves with the first one
that is not. A value equal to the limit is good. Batteries differ, so a device without such a row, or with an empty
limit, is not judged. An empty battery loses clock and registers with the next power cut. The voltage under load tells
more than that at rest, and this rule cannot tell them apart.
"""
---*/
SELECT
    device_id,
    ts,
    battery_v < limit_low AS firing,
    battery_v AS measured,
    limit_low,
    'V' AS unit,
    power_state
FROM (
    SELECT
        r.device_id,
        r.ts,
        TRY_CAST(r.battery_v AS DECIMAL(12, 6)) AS battery_v,
        CAST(TRY_CAST(l.limit_low AS DECIMAL(12, 3)) / 1000 AS DECIMAL(12, 6)) AS limit_low,
        r.power_state
    FROM device_metrics r
    JOIN device_limits l ON l.device_id = r.device_id AND l.metric_name = 'battery_mv'
) s
WHERE battery_v IS NOT NULL AND limit_low IS NOT NULL
