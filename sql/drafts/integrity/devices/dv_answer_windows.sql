/*---
id          = "dv_answer_windows"
kind        = "view"
title       = "Answers of each registered device in 15 minutes, one window every 5 minutes"
category    = "device"
entity      = "device_id"
standard    = "internal"
owner       = "operations"
description = """
One row per device of the reference table `devices` and window, also for devices that sent nothing. An answer is a sample
of any metric that does not say `online = false`. Only devices whose period (`step_s`) fits three times into the window
and that are registered throughout the window are in it. A window counts only if something came from any device within
its first and its last 5 minutes: where the whole stream begins, ends or stands still, nobody is called silent. This also
means that a window without a single sample of any device has no rows at all.
"""
---*/
WITH answers AS (
    SELECT
        device_id,
        window_start,
        window_end,
        count(*) FILTER (WHERE online IS DISTINCT FROM false) AS answers,
        count(*) FILTER (WHERE online = false) AS offline_samples
    FROM HOP(device_metrics, ts, INTERVAL '5 minutes', INTERVAL '15 minutes')
    GROUP BY device_id, window_start, window_end
),
windows AS (
    SELECT window_start, window_end, min(ts) AS first_at, max(ts) AS last_at
    FROM HOP(device_metrics, ts, INTERVAL '5 minutes', INTERVAL '15 minutes')
    GROUP BY window_start, window_end
)
SELECT
    d.device_id,
    d.device_type,
    d.step_s,
    w.window_start,
    w.window_end,
    coalesce(a.answers, 0) AS answers,
    coalesce(a.offline_samples, 0) AS offline_samples
FROM windows w
CROSS JOIN devices d
LEFT JOIN answers a ON a.device_id = d.device_id AND a.window_start = w.window_start
WHERE d.step_s BETWEEN 1 AND 300
    AND (d.valid_from IS NULL OR d.valid_from <= w.window_start)
    AND (d.valid_to IS NULL OR d.valid_to >= w.window_end)
    AND w.first_at <= w.window_start + INTERVAL '5 minutes'
    AND w.last_at >= w.window_end - INTERVAL '5 minutes'
