/*---
id          = "an_device_drift"
kind        = "alert"
title       = "Metric of a device drifts upwards"
title_zh    = "设备指标持续上升（Page-Hinkley）"
severity    = "warning"
entity      = ["device_id", "metric_name"]
category    = "anomaly"
standard    = "internal"
owner       = "analytics"
description = """
The test of D. V. Hinkley and E. S. Page for each device and metric in `drift_limits`: adds up by how much values were
above their own mean so far by more than `slack`, and fires when that sum has risen above `limit_high` since it was lowest.
A leak of memory or a fan that gives way shows so before any limit is reached. Both numbers are in the unit of the metric:
the slack is a deviation that does not matter, the limit a deviation beyond it times the number of values it may last.
Resolves when the sum has fallen back to the limit, which takes as many values below the mean. Kept are four numbers for
each series. Not seen: metrics without a row in the table, and falls. A device that was repaired keeps its mean; raise the
version of the rule to begin anew.
"""
---*/
SELECT
    v.device_id,
    v.metric_name,
    v.ts,
    v.sum_above > v.limit_high AS firing,
    v.sum_above AS measured,
    v.limit_high,
    v.unit,
    v.value,
    v.slack
FROM (
    SELECT
        d.device_id,
        d.metric_name,
        d.ts,
        d.value,
        CAST(l.slack AS DOUBLE) AS slack,
        CAST(l.limit_high AS DOUBLE) AS limit_high,
        l.unit,
        round(
            page_hinkley(d.value, CAST(l.slack AS DOUBLE)) OVER (PARTITION BY d.device_id, d.metric_name ORDER BY d.ts), 6
        ) AS sum_above
    FROM an_device_values d
    JOIN drift_limits l ON l.metric_name = d.metric_name
    WHERE l.slack IS NOT NULL AND l.limit_high IS NOT NULL
) v
