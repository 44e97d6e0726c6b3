/*---
id            = "an_feeder_score"
kind          = "alert"
title         = "Load of a feeder behaves unlike before"
title_zh      = "馈线负荷行为异常"
severity      = "warning"
entity        = ["feeder", "meter_id"]
category      = "anomaly"
unit          = "1"
standard      = "internal"
owner         = "analytics"
resolve_after = 4
description   = """
Follows the hourly mean power at the head of each feeder (meters whose `kind` matches `kinds`) with `anomaly_score`, as
an_device_score does metrics, and fires from `limit` on. For the few meters that stand for thousands; the score keeps
8.5 KB for each, too much for every customer. The score says
nothing in the first 150 hours. Not seen: which customer it is.
"""
[params]
limit = 0.5
kinds = "^(feeder_head|transformer|line_monitor)$"
---*/
SELECT
    feeder,
    meter_id,
    window_start,
    window_end,
    score >= $limit AS firing,
    score AS measured,
    CAST($limit AS DOUBLE) AS limit_high,
    mean_kw
FROM (
    SELECT
        m.feeder,
        h.meter_id,
        h.window_start,
        h.window_end,
        h.mean_kw,
        round(
            anomaly_score(CAST(h.mean_kw AS DOUBLE), h.window_start) OVER (PARTITION BY h.meter_id ORDER BY h.window_start), 6
        ) AS score
    FROM an_load_hours h
    JOIN meters m ON m.meter_id = h.meter_id
    WHERE m.feeder <> '' AND regexp_like(m.kind, $kinds)
) s
WHERE score IS NOT NULL
