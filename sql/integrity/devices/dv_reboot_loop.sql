/*---
id          = "dv_reboot_loop"
kind        = "alert"
title       = "Device restarted three times or more within an hour"
title_zh    = "设备频繁重启"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "restarts"
standard    = "internal"
owner       = "operations"
description = """
Fires while the hour up to a sample holds more than `max_restarts` restarts. A restart is a sample whose `uptime_s` is
below that of the sample before it; it is dated by that sample. Resolves by itself when the restarts are more than an hour
old and the device still sends. It cannot see several restarts between two samples, which count as one, nor a restart
after which the device ran longer before its first sample than before it. A counter of uptime that rolls over looks like
one restart.
"""
params      = { max_restarts = 2 }
---*/
SELECT
    device_id,
    ts,
    restarts > $max_restarts AS firing,
    restarts AS measured,
    $max_restarts AS limit_high,
    'restarts' AS unit,
    uptime_s
FROM (
    SELECT
        device_id,
        ts,
        uptime_s,
        sum(restarted) OVER (PARTITION BY device_id ORDER BY ts RANGE INTERVAL '1 hour' PRECEDING) AS restarts
    FROM (
        SELECT
            device_id,
            ts,
            uptime_s,
            CASE
                WHEN uptime_s < lag(uptime_s) OVER (PARTITION BY device_id ORDER BY ts)
                    AND ts > lag(ts) OVER (PARTITION BY device_id ORDER BY ts) THEN 1
                ELSE 0
            END AS restarted
        FROM device_metrics
        WHERE uptime_s IS NOT NULL
    ) s
) r
