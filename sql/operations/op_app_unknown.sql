/*---
id          = "op_app_unknown"
kind        = "alert"
title       = "Heartbeats of an application that is not registered"
title_zh    = "未登记应用的心跳"
severity    = "info"
entity      = "app_id"
category    = "operations"
standard    = "internal"
owner       = "operations"
description = """
One occurrence for each local day (UTC+8) and sender of heartbeats that is not in `applications` at the end of that day:
software that nobody approved, a test instance that talks to the real system, or a register that lags behind. Such
instances are watched by none of the other rules of heartbeats. Not seen: software that sends no heartbeat.
"""
---*/
SELECT d.app_id, d.window_start, d.window_end, d.beats, d.last_version
FROM (
    SELECT
        app_id,
        window_start,
        window_end,
        count(*) AS beats,
        last_value(version ORDER BY ts) AS last_version
    FROM TUMBLE(op_app_versions, ts, INTERVAL '1 day', 'Asia/Shanghai')
    GROUP BY app_id, window_start, window_end
) d
LEFT JOIN applications a ON a.app_id = d.app_id
WHERE a.app_id IS NULL
