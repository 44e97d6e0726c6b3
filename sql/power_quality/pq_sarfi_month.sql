/*---
id          = "pq_sarfi_month"
kind        = "table"
title       = "SARFI of each feeder and month"
title_zh    = "系统平均电压暂降频次指标(SARFI)"
standard    = "IEEE 1564-2014"
clause      = "5"
category    = "pq"
entity      = "feeder"
unit        = "1"
owner       = "power-quality"
description = """
System average rms frequency index: how many dips and interruptions below 90, 70 and 50 % of the declared voltage an average customer
of the feeder saw in a calendar month (Asia/Shanghai). Each point stands for the `customers` of `pq_points` behind it; the total is that
of all registered points of the feeder at the end of the month. Events within a minute of the one before are one. A residual equal to
a threshold is not below it. Points without a device that records are in the total and see nothing, so cover the feeder before you
compare; a month without any event on any feeder has no row. GB/T 30137-2013 uses the same index.
"""
---*/
WITH events AS (
    SELECT
        feeder,
        window_start,
        window_end,
        count(*) AS n_events,
        sum(customers) FILTER (WHERE residual_pct < 90) AS hit_90,
        sum(customers) FILTER (WHERE residual_pct < 70) AS hit_70,
        sum(customers) FILTER (WHERE residual_pct < 50) AS hit_50
    FROM TUMBLE(pq_supply_events, start_ts, INTERVAL '1 month', 'Asia/Shanghai')
    WHERE counted AND kind IN ('dip', 'interruption')
    GROUP BY feeder, window_start, window_end
),
months AS (
    SELECT DISTINCT window_start, window_end FROM TUMBLE(pq_supply_events, start_ts, INTERVAL '1 month', 'Asia/Shanghai')
),
totals AS (
    SELECT p.feeder, m.window_start, m.window_end, sum(p.customers) AS customers
    FROM months m
    CROSS JOIN pq_points p
    WHERE p.feeder IS NOT NULL
    GROUP BY p.feeder, m.window_start, m.window_end
)
SELECT
    t.feeder,
    t.window_start,
    t.window_end,
    CAST(t.window_start + INTERVAL '8 hours' AS DATE) AS local_month,
    t.customers,
    coalesce(e.n_events, 0) AS n_events,
    CAST(CAST(coalesce(e.hit_90, 0) AS DECIMAL(24, 6)) / nullif(t.customers, 0) AS DECIMAL(18, 6)) AS sarfi_90,
    CAST(CAST(coalesce(e.hit_70, 0) AS DECIMAL(24, 6)) / nullif(t.customers, 0) AS DECIMAL(18, 6)) AS sarfi_70,
    CAST(CAST(coalesce(e.hit_50, 0) AS DECIMAL(24, 6)) / nullif(t.customers, 0) AS DECIMAL(18, 6)) AS sarfi_50
FROM totals t
LEFT JOIN events e ON e.feeder = t.feeder AND e.window_start = t.window_start
WHERE t.customers > 0
