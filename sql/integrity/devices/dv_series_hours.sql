/*---
id          = "dv_series_hours"
kind        = "table"
title       = "Samples of each device metric in each hour"
category    = "device"
entity      = ["device_id", "metric_name"]
standard    = "internal"
owner       = "operations"
description = """
One row per device, metric and UTC hour with at least one sample. `samples` less `instants` is the number of samples that
repeat an instant. An hour without any sample has no row.
"""
---*/
SELECT
    device_id,
    metric_name,
    window_start,
    window_end,
    count(*) AS samples,
    count(DISTINCT ts) AS instants,
    count(value) AS values_present,
    min(value) AS value_min,
    max(value) AS value_max,
    round(avg(value), 6) AS value_mean
FROM TUMBLE(device_metrics, ts, INTERVAL '1 hour')
GROUP BY device_id, metric_name, window_start, window_end
