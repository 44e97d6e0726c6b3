/*---
id          = "dv_out_of_range"
kind        = "alert"
title       = "Device metric outside its limits"
severity    = "warning"
entity      = ["device_id", "metric_name"]
category    = "device"
standard    = "internal"
owner       = "operations"
description = """
Judges each sample against the row of the reference table `device_limits` that is valid at its time: opens with the first
sample outside, resolves with the first one inside. A value equal to a limit is inside; an empty limit is no limit.
"""
---*/
SELECT
    r.device_id,
    r.metric_name,
    r.ts,
    coalesce(r.value < CAST(l.limit_low AS DOUBLE), false)
        OR coalesce(r.value > CAST(l.limit_high AS DOUBLE), false) AS firing,
    r.value AS measured,
    CAST(l.limit_low AS DOUBLE) AS limit_low,
    CAST(l.limit_high AS DOUBLE) AS limit_high,
    l.unit
FROM device_metrics r
JOIN device_limits l ON l.device_id = r.device_id AND l.metric_name = r.metric_name
WHERE r.value IS NOT NULL
