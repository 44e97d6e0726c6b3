/*---
id          = "dv_memory_leak"
kind        = "alert"
title       = "Memory of a device grows in a straight line for a day"
title_zh    = "内存持续线性增长(疑似泄漏)"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "%/h"
standard    = "internal"
owner       = "operations"
description = """
Draws the straight line of least squares through the hourly means of the memory use (`mem_pct`, see dv_values) of 24 hours
and fires when it rises by more than `min_pct_per_hour` and explains more than `min_r2` of their spread (R squared): a
program does not give memory back, and the device will restart. `hours_left` is when the line reaches 100 %. Judged each
hour, for devices with at least `min_hours` hours that have a value, the newest among them; resolves when the line lies,
falls or bends. A restart bends it for 24 hours.
Not seen: a leak that is freed every night, and one below the noise of the load.
"""
params      = { min_pct_per_hour = 0.05, min_r2 = 0.9, min_hours = 20 }
---*/
WITH hours AS (
    SELECT device_id, window_start AS hour, window_end, CAST(avg(value) AS DECIMAL(12, 6)) AS used_pct
    FROM TUMBLE(dv_values, ts, INTERVAL '1 hour')
    WHERE metric = 'mem_pct'
    GROUP BY device_id, window_start, window_end
),
points AS (
    -- Hours since 2020-01-01, small enough for exact sums of squares.
    SELECT
        device_id,
        hour,
        used_pct,
        CAST((extract(epoch FROM hour) - extract(epoch FROM TIMESTAMP '2020-01-01T00:00:00Z')) / 3600 AS BIGINT) AS x
    FROM hours
),
sums AS (
    SELECT
        device_id,
        window_start,
        window_end,
        count(*) AS n,
        max(hour) AS newest,
        last_value(used_pct ORDER BY hour) AS used_pct,
        CAST(max(x) AS DOUBLE) - CAST(sum(x) AS DOUBLE) / count(*) AS x_from_mean,
        CAST(sum(used_pct) AS DOUBLE) / count(*) AS mean_pct,
        -- count(*) times the sums of squares about the means, exact.
        CAST(count(*) * sum(x * x) - sum(x) * sum(x) AS DOUBLE) AS xx,
        CAST(count(*) * sum(x * used_pct) - sum(x) * sum(used_pct) AS DOUBLE) AS xy,
        CAST(count(*) * sum(CAST(used_pct * used_pct AS DECIMAL(20, 8))) - sum(used_pct) * sum(used_pct) AS DOUBLE) AS yy
    FROM HOP(points, hour, INTERVAL '1 hour', INTERVAL '24 hours')
    GROUP BY device_id, window_start, window_end
)
SELECT
    device_id,
    window_start,
    window_end,
    pct_per_hour > $min_pct_per_hour AND r2 > $min_r2 AS firing,
    pct_per_hour AS measured,
    CAST($min_pct_per_hour AS DOUBLE) AS limit_high,
    '%/h' AS unit,
    r2,
    CASE
        WHEN pct_per_hour > 0 THEN round((100 - mean_pct) / pct_per_hour - x_from_mean, 3)
    END AS hours_left,
    used_pct,
    n AS hours
FROM (
    SELECT
        *,
        round(xy / nullif(xx, 0), 6) AS pct_per_hour,
        CASE WHEN yy = 0 THEN 0.0 ELSE round(xy * xy / nullif(xx * yy, 0), 6) END AS r2
    FROM sums
    WHERE n >= $min_hours AND newest = window_end - INTERVAL '1 hour'
) l
