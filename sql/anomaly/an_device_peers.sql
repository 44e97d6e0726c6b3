/*---
id          = "an_device_peers"
kind        = "alert"
title       = "Device deviates from devices of its kind"
title_zh    = "设备偏离同类设备"
severity    = "warning"
entity      = ["device_id", "metric_name"]
category    = "anomaly"
unit        = "sigma"
standard    = "internal"
owner       = "analytics"
description = """
Compares the mean of each metric of a device in 10 minutes with the median of the devices of the same type (`devices`) in
the same window, in robust standard deviations (1.4826 times the median distance of these devices), and fires beyond
`max_z`, if it is also more than `min_change_pct` of the median off. What hits all alike, such as a busy hour, does
not fire. With fewer than `min_peers` devices, or if more than half of them have the same value, the verdict is
`insufficient_data`. Metrics that match `left_out` are not judged: temperatures have a rule of their own among those of
devices. Resolves with the next window within. Nothing is kept beyond the window. Not seen: a fault that half
of the devices share, and devices that are not registered.
"""
[params]
max_z          = 4.0
min_change_pct = 20.0
min_peers      = 5
left_out       = "^temp_c$"
---*/
SELECT
    device_id,
    metric_name,
    window_start,
    window_end,
    CASE WHEN verdict <> 'insufficient_data' THEN verdict <> 'usual' END AS firing,
    verdict,
    z AS measured,
    -$max_z AS limit_low,
    $max_z AS limit_high,
    'sigma' AS unit,
    mean_value,
    peers_median,
    peers_spread,
    peers,
    device_type
FROM (
    SELECT
        *,
        CASE
            WHEN peers < $min_peers OR z IS NULL THEN 'insufficient_data'
            WHEN abs(mean_value - peers_median) <= 1.4826 * $max_z * peers_spread
                OR abs(mean_value - peers_median) * 100 <= abs(peers_median) * $min_change_pct
                THEN 'usual'
            WHEN z > 0 THEN 'high'
            ELSE 'low'
        END AS verdict
    FROM (
        SELECT
            *,
            round(
                CAST(mean_value - peers_median AS DOUBLE) / nullif(1.4826 * CAST(peers_spread AS DOUBLE), 0), 6
            ) AS z
        FROM (
            SELECT
                *,
                median(abs(mean_value - peers_median)) OVER (PARTITION BY device_type, metric_name, window_start) AS peers_spread
            FROM (
                SELECT
                    w.device_id,
                    w.metric_name,
                    w.window_start,
                    w.window_end,
                    w.mean_value,
                    d.device_type,
                    median(w.mean_value) OVER (PARTITION BY d.device_type, w.metric_name, w.window_start) AS peers_median,
                    count(*) OVER (PARTITION BY d.device_type, w.metric_name, w.window_start) AS peers
                FROM (
                    SELECT
                        device_id,
                        metric_name,
                        window_start,
                        window_end,
                        CAST(avg(TRY_CAST(value AS DECIMAL(15, 6))) AS DECIMAL(16, 6)) AS mean_value
                    FROM TUMBLE(an_device_values, ts, INTERVAL '10 minutes')
                    WHERE TRY_CAST(value AS DECIMAL(15, 6)) IS NOT NULL AND NOT regexp_like(metric_name, $left_out)
                    GROUP BY device_id, metric_name, window_start, window_end
                ) w
                JOIN devices d ON d.device_id = w.device_id
                WHERE d.device_type <> ''
            ) m
        ) s
    ) z
) v
