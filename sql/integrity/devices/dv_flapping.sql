/*---
id          = "dv_flapping"
kind        = "alert"
title       = "Device went online and offline six times or more within an hour"
title_zh    = "设备频繁上下线"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "changes"
standard    = "internal"
owner       = "operations"
description = """
Fires while the hour up to a sample holds more than `max_changes` changes of `online`, in either direction. A change is
dated by the sample that first shows the new state. The alert stands for as long as the hour holds that many, so that one
alert takes the place of many. It cannot see changes between two samples: of a device sampled every 15 minutes there are
at most four or five an hour, and it never fires.
"""
params      = { max_changes = 5 }
---*/
SELECT
    device_id,
    ts,
    changes > $max_changes AS firing,
    changes AS measured,
    $max_changes AS limit_high,
    'changes' AS unit,
    online
FROM (
    SELECT
        device_id,
        ts,
        online,
        sum(changed) OVER (PARTITION BY device_id ORDER BY ts RANGE INTERVAL '1 hour' PRECEDING) AS changes
    FROM (
        SELECT
            device_id,
            ts,
            online,
            CASE
                WHEN online <> lag(online) OVER (PARTITION BY device_id ORDER BY ts)
                    AND ts > lag(ts) OVER (PARTITION BY device_id ORDER BY ts) THEN 1
                ELSE 0
            END AS changed
        FROM device_metrics
        WHERE online IS NOT NULL
    ) s
) r
