/*---
id          = "pq_reliability_month"
kind        = "table"
title       = "SAIFI, SAIDI and CAIDI of each feeder and month"
title_zh    = "供电可靠性指标(SAIFI、SAIDI、CAIDI)"
standard    = "IEEE 1366-2012"
clause      = "3"
category    = "pq"
entity      = "feeder"
unit        = "min"
owner       = "distribution"
description = """
From the long outages of pq_outages that begin in a calendar month (Asia/Shanghai): how many an average customer of the feeder had
(`saifi`), how many minutes of them (`saidi_min`), and how long one lasted (`caidi_min`). Each point stands for the `customers` of
`pq_points` behind it; the total is that of all registered points of the feeder at the end of the month. Meters that did not report
their loss are missing in the count, and an outage that is not over within 7 days is none here. No days are left out as major events.
A month without any outage on any feeder has no row.
"""
---*/
WITH events AS (
    SELECT
        feeder,
        window_start,
        window_end,
        count(*) AS n_outages,
        sum(customers) AS hit,
        sum(customers * CAST(outage_min AS DECIMAL(18, 6))) AS customer_min
    FROM TUMBLE(pq_outages, start_ts, INTERVAL '1 month', 'Asia/Shanghai')
    WHERE length_class = 'long'
    GROUP BY feeder, window_start, window_end
),
months AS (
    SELECT DISTINCT window_start, window_end FROM TUMBLE(pq_outages, start_ts, INTERVAL '1 month', 'Asia/Shanghai')
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
    coalesce(e.n_outages, 0) AS n_outages,
    CAST(CAST(coalesce(e.hit, 0) AS DECIMAL(24, 6)) / nullif(t.customers, 0) AS DECIMAL(18, 6)) AS saifi,
    CAST(CAST(coalesce(e.customer_min, 0) AS DECIMAL(24, 6)) / nullif(t.customers, 0) AS DECIMAL(18, 6)) AS saidi_min,
    CAST(CAST(e.customer_min AS DECIMAL(24, 6)) / nullif(e.hit, 0) AS DECIMAL(18, 6)) AS caidi_min
FROM totals t
LEFT JOIN events e ON e.feeder = t.feeder AND e.window_start = t.window_start
WHERE t.customers > 0
