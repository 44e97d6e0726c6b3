/*---
id          = "rp_transformer_load"
title       = "Which transformers are heavily loaded or overloaded, for how long, and which should be replaced?"
title_zh    = "变压器重载过载排名与增容建议"
description = """
For the planners of distribution. One row per transformer and month, those with the longest overload first, at most 200 a month.
`heavy_h` and `overload_h` are the hours of quarters above 80 and 100 % (pq_light_load_month). `episodes` are the alerts of pq_load
that opened in the month, `longest_h` the longest of them, from its opening to its end (or to its last firing, if it is open); an
alert opens after two hours above 80 %, so the load was high two hours before. `needed_kva` is the capacity of which the highest
quarter would be 80 %. `advice`: `replace` after two hours of overload in the month, `watch` after any overload or 20 hours above 80 %,
`smaller` for a light one with enough data, `no_judgement` where quarters are missing and nothing was high, else `keep`.
`coverage_pct` is the share of the month's quarters with a value: a month with little of it may hide an overload. Points without a
capacity in `pq_points` have no row. It cannot see the temperature of the oil, the growth to come, or seasonal load of other months:
look at a year before money is spent.
"""
owner       = "distribution"
duckdb      = true
---*/
WITH months AS (
    SELECT l.*, CAST(l.window_start AT TIME ZONE 'Asia/Shanghai' AS DATE) AS local_month
    FROM pq_light_load_month l
),
-- The last record of each opening says how it ended.
records AS (
    SELECT *, row_number() OVER (PARTITION BY fingerprint, opening ORDER BY revision DESC) AS n
    FROM (
        SELECT *, sum(CASE status WHEN 'open' THEN 1 ELSE 0 END) OVER (PARTITION BY fingerprint ORDER BY revision) AS opening
        FROM alerts
        WHERE rule_id = 'pq_load'
    ) a
),
episodes AS (
    SELECT
        entity_id AS meter_id,
        CAST(date_trunc('month', first_seen_ts AT TIME ZONE 'Asia/Shanghai') AS DATE) AS local_month,
        count(*) AS episodes,
        count(*) FILTER (WHERE status <> 'resolved') AS still_open,
        CAST(
            max(extract(epoch FROM coalesce(resolved_ts, last_seen_ts)) - extract(epoch FROM first_seen_ts)) / 3600 AS DECIMAL(9, 2)
        ) AS longest_h
    FROM records
    WHERE n = 1
    GROUP BY entity_id, CAST(date_trunc('month', first_seen_ts AT TIME ZONE 'Asia/Shanghai') AS DATE)
),
ranked AS (
    SELECT
        m.*,
        p.org_id,
        p.feeder,
        p.sn_kva,
        coalesce(e.episodes, 0) AS episodes,
        coalesce(e.still_open, 0) AS still_open,
        e.longest_h,
        row_number() OVER (
            PARTITION BY m.local_month ORDER BY m.overload_h DESC, m.heavy_h DESC, m.highest_load_pct DESC, m.meter_id
        ) AS place
    FROM months m
    -- The version of the last moment of the month.
    JOIN pq_points p ON p.meter_id = m.meter_id
        AND (p.valid_from IS NULL OR p.valid_from < m.window_end) AND (p.valid_to IS NULL OR m.window_end <= p.valid_to)
    LEFT JOIN episodes e ON e.meter_id = m.meter_id AND e.local_month = m.local_month
)
SELECT
    local_month,
    place,
    meter_id,
    org_id,
    feeder,
    sn_kva,
    highest_load_pct,
    mean_load_pct,
    heavy_h,
    overload_h,
    episodes,
    still_open,
    longest_h,
    CAST(sn_kva * highest_load_pct / 80 AS DECIMAL(15, 1)) AS needed_kva,
    CASE
        WHEN overload_h >= 2 THEN 'replace'
        WHEN overload_h > 0 OR heavy_h >= 20 THEN 'watch'
        WHEN verdict = 'light' THEN 'smaller'
        WHEN verdict = 'insufficient_data' THEN 'no_judgement'
        ELSE 'keep'
    END AS advice,
    CAST(coverage_pct AS DECIMAL(9, 2)) AS coverage_pct,
    basis
FROM ranked
WHERE place <= 200
ORDER BY local_month DESC, place
