/*---
id          = "op_heartbeat_windows"
kind        = "view"
title       = "Heartbeats of each registered application in 5 minutes"
title_zh    = "应用心跳五分钟窗口"
category    = "operations"
entity      = "app_id"
standard    = "internal"
owner       = "operations"
description = """
One row per instance of `applications` and window of 5 minutes (one ends every minute), also for instances that sent
nothing. A heartbeat is a sample of `device_metrics` with the metric `heartbeat` whose `device_id` is the `app_id`; it is
good unless it says `online = false` or has the value 0, by which an agent tells that the process is missing. Instances
with a period of up to 100 s, so that a window has room for three, that are registered throughout the window. Windows in
which the stream begins or ends are left out: it must have samples in the first and in the last minute.
"""
---*/
WITH beats AS (
    SELECT
        device_id,
        window_start,
        count(*) FILTER (WHERE (online IS DISTINCT FROM FALSE) AND (value IS DISTINCT FROM 0)) AS good_beats,
        count(*) AS beats,
        max(ts) AS last_beat_ts
    FROM HOP(device_metrics, ts, INTERVAL '1 minute', INTERVAL '5 minutes')
    WHERE metric_name = 'heartbeat'
    GROUP BY device_id, window_start, window_end
),
windows AS (
    SELECT window_start, window_end, min(ts) AS first_at, max(ts) AS last_at
    FROM HOP(device_metrics, ts, INTERVAL '1 minute', INTERVAL '5 minutes')
    GROUP BY window_start, window_end
)
SELECT
    a.app_id,
    a.service,
    a.is_critical,
    a.step_s,
    w.window_start,
    w.window_end,
    coalesce(b.beats, 0) AS beats,
    coalesce(b.good_beats, 0) AS good_beats,
    b.last_beat_ts
FROM windows w
CROSS JOIN applications a
LEFT JOIN beats b ON b.device_id = a.app_id AND b.window_start = w.window_start
WHERE a.step_s BETWEEN 1 AND 100
    AND (a.valid_from IS NULL OR a.valid_from <= w.window_start)
    AND (a.valid_to IS NULL OR a.valid_to >= w.window_end)
    AND w.first_at < w.window_start + INTERVAL '1 minute'
    AND w.last_at >= w.window_end - INTERVAL '1 minute'
