/*---
id            = "an_device_score"
kind          = "alert"
title         = "Metric of a device behaves unlike before"
title_zh      = "设备指标行为异常"
severity      = "info"
entity        = ["device_id", "metric_name"]
category      = "anomaly"
unit          = "1"
standard      = "internal"
owner         = "analytics"
resolve_after = 12
description   = """
Follows each metric of each device with `anomaly_score`, which learns the usual value of each time of day and hour of the
week and how far values stray from it, and fires from `limit` (0.5) on. It needs no limits of the metric. An anomaly is
told once, at its beginning; the alert resolves after 12 values that are none. The score says nothing in the first 150
values of a series. Kept are 8.5 KB for each metric. Limits that somebody knows are better kept as limits. Not seen: a
second event within 75 values of one, and what the function is not made for, see docs/sql.md. Clocks are UTC.
"""
params        = { limit = 0.5 }
---*/
SELECT
    device_id,
    metric_name,
    ts,
    score >= $limit AS firing,
    score AS measured,
    CAST($limit AS DOUBLE) AS limit_high,
    value
FROM (
    SELECT
        device_id,
        metric_name,
        ts,
        value,
        round(anomaly_score(value, ts) OVER (PARTITION BY device_id, metric_name ORDER BY ts), 6) AS score
    FROM an_device_values
) s
WHERE score IS NOT NULL
