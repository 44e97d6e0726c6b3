/*---
id          = "outliers"
kind        = "table"
title       = "Values far off the mean of the values before them"
entity      = ["device_id", "metric"]
owner       = "device operations"
standard    = "internal"
description = """
Compares each value with the mean and the sample standard deviation of the 288 values before it (a day of
five-minute values) and tells of those more than `limit` deviations off. Values with fewer before them, or
after a standstill, are not judged.
"""
[params]
limit = 6
---*/
SELECT
    device_id,
    metric,
    ts,
    to_char(ts + CAST(coalesce(tz_offset_min, 0) || ' minutes' AS INTERVAL), '%Y-%m-%dT%H:%M:%S')
        || CASE
            WHEN coalesce(tz_offset_min, 0) = 0 THEN 'Z'
            ELSE CASE WHEN tz_offset_min < 0 THEN '-' ELSE '+' END
                || lpad(CAST(abs(tz_offset_min) / 60 AS VARCHAR), 2, '0') || ':'
                || lpad(CAST(abs(tz_offset_min) % 60 AS VARCHAR), 2, '0')
        END AS local_ts,
    value,
    mean_before,
    sd_before
FROM (
    SELECT *, count(value) OVER w AS n, avg(value) OVER w AS mean_before, stddev_samp(value) OVER w AS sd_before
    FROM device_metrics
    WINDOW w AS (PARTITION BY device_id, metric ORDER BY ts ROWS BETWEEN 288 PRECEDING AND 1 PRECEDING)
)
WHERE n = 288 AND sd_before > 1e-9 AND abs(value - mean_before) / sd_before > $limit
