/*---
id          = "dv_online_rate"
kind        = "alert"
title       = "Online rate of the day below 95 %"
title_zh    = "设备日在线率偏低"
severity    = "info"
entity      = "device_id"
category    = "device"
unit        = "%"
standard    = "internal"
owner       = "operations"
description = """
Fires when a device was online for less than `limit_pct` of the instants that its period promises in the local day
(UTC+8), by dv_online_days; a rate equal to the limit is good. Says nothing of a day that the stream did not cover, nor of
a device that never says whether it is online. It cannot see outages between two samples. An alert of a device that is
taken out of the registry stays open.
"""
params      = { limit_pct = 95.0 }
---*/
SELECT
    device_id,
    window_start,
    window_end,
    CASE WHEN whole_day THEN online * 100 < expected * $limit_pct END AS firing,
    online_pct AS measured,
    $limit_pct AS limit_low,
    '%' AS unit,
    online,
    expected,
    offline,
    samples
FROM dv_online_days
