/*---
id          = "dv_disk_forecast"
kind        = "alert"
title       = "Fullest disk reaches 90 % within 7 days"
title_zh    = "磁盘将在七天内写满"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "d"
standard    = "internal"
owner       = "operations"
description = """
Draws the straight line of least squares through the highest `disk_pct` of each UTC day of the last 14 days and fires when
it rises and meets `full_pct` less than `limit_days` after the newest of these days, or is beyond it already; exactly
`limit_days` is good. `measured` is the number of days, rounded to 6 decimals, below 0 where the line is beyond it. Judged
are devices with at least `min_days` days that have a value, the newest among them; a line that does not rise is good. It
cannot see that a disk was emptied: the fall bends the line for 14 days. What is full already is the matter of dv_disk.
"""
params      = { full_pct = 90.0, limit_days = 7, min_days = 7 }
---*/
WITH days AS (
    SELECT device_id, window_start AS day, window_end, max(TRY_CAST(disk_pct AS DECIMAL(9, 6))) AS used_pct
    FROM TUMBLE(device_metrics, ts, INTERVAL '1 day')
    WHERE disk_pct BETWEEN 0 AND 100
    GROUP BY device_id, window_start, window_end
),
points AS (
    -- Days since 2020-01-01, small enough for exact sums of squares.
    SELECT
        device_id,
        day,
        used_pct,
        CAST((extract(epoch FROM day) - extract(epoch FROM TIMESTAMP '2020-01-01T00:00:00Z')) / 86400 AS BIGINT) AS x
    FROM days
),
sums AS (
    SELECT
        device_id,
        window_start,
        window_end,
        count(*) AS n,
        max(day) AS newest,
        CAST(max(x) AS DOUBLE) AS last_x,
        CAST(sum(x) AS DOUBLE) AS sx,
        CAST(sum(x * x) AS DOUBLE) AS sxx,
        CAST(sum(used_pct) AS DOUBLE) AS sy,
        CAST(sum(x * used_pct) AS DOUBLE) AS sxy
    FROM HOP(points, day, INTERVAL '1 day', INTERVAL '14 days')
    GROUP BY device_id, window_start, window_end
),
lines AS (
    SELECT
        device_id,
        window_start,
        window_end,
        n,
        round((n * sxy - sx * sy) / nullif(n * sxx - sx * sx, 0), 9) AS pct_per_day,
        sy / n AS mean_pct,
        last_x - sx / n AS x_from_mean
    FROM sums
    WHERE n >= $min_days AND newest = window_end - INTERVAL '1 day'
)
SELECT
    device_id,
    window_start,
    window_end,
    pct_per_day > 0 AND round(($full_pct - mean_pct) / nullif(pct_per_day, 0) - x_from_mean, 6) < $limit_days AS firing,
    CASE WHEN pct_per_day > 0 THEN round(($full_pct - mean_pct) / nullif(pct_per_day, 0) - x_from_mean, 6) END AS measured,
    CAST($limit_days AS DOUBLE) AS limit_low,
    'd' AS unit,
    pct_per_day,
    round(mean_pct + pct_per_day * x_from_mean, 6) AS line_pct,
    n AS days
FROM lines
