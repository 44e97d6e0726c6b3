/*---
id          = "dv_series_missing"
kind        = "alert"
title       = "Metric of a device that came regularly has stopped"
title_zh    = "设备指标中断上报"
severity    = "warning"
entity      = ["device_id", "metric_name"]
category    = "device"
unit        = "h"
standard    = "internal"
owner       = "operations"
description = """
Fires for each UTC hour in which a device was heard, but not one of its metrics that came in at least `min_hours` of the
24 hours before: an agent lost a plugin, a process that reported its life is gone, a sensor died, and every limit on
that metric watches nothing. `measured` is how many hours ago it came last. Resolves when it comes again, or says
nothing any more when it has stayed away so long that it is not usual any more; then the alert stays open for people.
A device that is silent altogether is the matter of dv_silent, too few samples that of dv_sparse.
Not seen: metrics that come less often than `min_hours` of 24 hours, and core columns of a sample.
"""
params      = { min_hours = 12 }
---*/
WITH heard AS (
    SELECT DISTINCT device_id, window_start, window_end FROM TUMBLE(device_metrics, ts, INTERVAL '1 hour')
),
series AS (
    SELECT DISTINCT device_id, metric_name, window_start AS heard_at
    FROM TUMBLE(device_metrics, ts, INTERVAL '1 hour')
),
known AS (
    SELECT
        h.device_id,
        s.metric_name,
        h.window_start,
        h.window_end,
        max(s.heard_at) AS last_heard,
        count(*) FILTER (WHERE s.heard_at < h.window_start) AS hours_before
    FROM heard h
    JOIN series s
        ON s.device_id = h.device_id
        AND s.heard_at <= h.window_start
        AND s.heard_at >= h.window_start - INTERVAL '24 hours'
    GROUP BY h.device_id, s.metric_name, h.window_start, h.window_end
)
SELECT
    device_id,
    metric_name,
    window_start,
    window_end,
    last_heard < window_start AS firing,
    CAST((extract(epoch FROM window_start) - extract(epoch FROM last_heard)) / 3600 AS BIGINT) AS measured,
    0 AS limit_high,
    'h' AS unit,
    hours_before
FROM known
WHERE last_heard = window_start OR hours_before >= $min_hours
