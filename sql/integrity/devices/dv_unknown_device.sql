/*---
id          = "dv_unknown_device"
kind        = "alert"
title       = "Samples of a device that is not in the registry at that time"
title_zh    = "未在册设备"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "samples"
standard    = "internal"
owner       = "operations"
description = """
Fires for each UTC hour that holds samples of a device outside the time that the reference table `devices` gives it: from
`valid_from` up to, but not including, `valid_to`. Samples before installation and after removal count too. Resolves with
the first hour in which all of its samples are covered. What is not in the registry has no limits, no owner and no one who
misses it. It cannot see two devices that use one identity.
"""
---*/
WITH looked_up AS (
    SELECT r.device_id, r.ts, d.device_id AS registered_id
    FROM device_metrics r
    LEFT JOIN devices d ON d.device_id = r.device_id
)
SELECT
    device_id,
    window_start,
    window_end,
    unknown > 0 AS firing,
    unknown AS measured,
    0 AS limit_high,
    'samples' AS unit,
    first_unknown_at
FROM (
    SELECT
        device_id,
        window_start,
        window_end,
        count(*) FILTER (WHERE registered_id IS NULL) AS unknown,
        min(ts) FILTER (WHERE registered_id IS NULL) AS first_unknown_at
    FROM TUMBLE(looked_up, ts, INTERVAL '1 hour')
    GROUP BY device_id, window_start, window_end
) h
