/*---
id          = "dv_silence"
kind        = "view"
title       = "How long each registered device has been silent, minute by minute"
title_zh    = "各在册设备逐分钟静默时长"
category    = "device"
entity      = "device_id"
unit        = "s"
standard    = "internal"
owner       = "operations"
description = """
One row per UTC minute in which any device was heard and device that the reference table `devices` holds throughout that
minute, also for devices that sent nothing. An answer is a sample of any metric that does not say `online = false`.
`silence_s` is the time from the last answer of the device to the end of the minute; of a device that was never heard,
from the first minute in which it is in the registry.
When the whole stream was silent for more than `stream_gap_s`, nobody is accused: silence is counted from the minute in
which it came back. A minute without a single sample of any device has no rows.
"""
params      = { stream_gap_s = 300 }
---*/
WITH heard AS (
    SELECT
        device_id,
        window_start,
        window_end,
        max(ts) FILTER (WHERE online IS DISTINCT FROM false) AS answered_at,
        count(*) FILTER (WHERE online = false) AS offline_samples
    FROM TUMBLE(device_metrics, ts, INTERVAL '1 minute')
    GROUP BY device_id, window_start, window_end
),
minutes AS (
    SELECT DISTINCT window_start, window_end FROM TUMBLE(device_metrics, ts, INTERVAL '1 minute')
),
live AS (
    SELECT
        window_start,
        window_end,
        CASE
            WHEN extract(epoch FROM window_start) - extract(epoch FROM lag(window_start) OVER (ORDER BY window_start))
                <= $stream_gap_s THEN NULL
            ELSE window_start
        END AS came_back_at
    FROM minutes
)
SELECT
    device_id,
    device_type,
    area,
    upstream_id,
    step_s,
    window_start,
    window_end,
    last_answer_at,
    offline_samples,
    CAST(
        extract(epoch FROM window_end) - extract(epoch FROM greatest(last_answer_at, came_back_at, first_minute))
        AS DECIMAL(15, 3)
    ) AS silence_s
FROM (
    SELECT
        d.device_id,
        d.device_type,
        d.area,
        d.upstream_id,
        d.step_s,
        m.window_start,
        m.window_end,
        coalesce(h.offline_samples, 0) AS offline_samples,
        max(h.answered_at) OVER (PARTITION BY d.device_id ORDER BY m.window_start) AS last_answer_at,
        max(m.came_back_at) OVER (PARTITION BY d.device_id ORDER BY m.window_start) AS came_back_at,
        min(m.window_start) OVER (PARTITION BY d.device_id ORDER BY m.window_start) AS first_minute
    FROM live m
    CROSS JOIN devices d
    LEFT JOIN heard h ON h.device_id = d.device_id AND h.window_start = m.window_start
    WHERE d.step_s >= 1
        AND (d.valid_from IS NULL OR d.valid_from <= m.window_start)
        AND (d.valid_to IS NULL OR d.valid_to >= m.window_end)
) s
