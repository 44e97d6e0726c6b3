/*---
id          = "rp_reliability"
title       = "How long and how often were customers without supply, and how many dips did they see?"
title_zh    = "供电可靠性(SAIDI、SAIFI、CAIDI、MAIFI、SARFI)"
description = """
For management and the regulator. One row per month and feeder, and one of all feeders (`all`) first: outage minutes (`saidi_min`)
and outages (`saifi`) of an average customer, minutes of an outage (`caidi_min`), short outages (`maifi`; up to 180 s), and dips and
interruptions below 90, 70 and 50 % of the declared voltage (`sarfi_…`). From pq_reliability_month, pq_sarfi_month and pq_outages; those of
all feeders are weighted by their customers. `asai_pct` is the share of the time with supply.
NULL is not 0: where no outage (or no dip) of any feeder was recorded in the month, these tables have no row, and nobody can say
whether there was none or nothing was recorded. `heard_pct` is the share of meters of the feeder that were heard (of `all` that of the feeder with the lowest), from
op_collection_days; a feeder of which little is heard looks reliable. Not counted: outages of which one message is missing, those that
last more than 7 days, points without `customers` in `pq_points`. No days are left out as major events.
"""
owner       = "distribution"
duckdb      = true
---*/
WITH short_outages AS (
    SELECT
        feeder,
        CAST(date_trunc('month', start_ts AT TIME ZONE 'Asia/Shanghai') AS DATE) AS local_month,
        count(*) FILTER (WHERE length_class = 'short') AS n_short,
        coalesce(sum(customers) FILTER (WHERE length_class = 'short'), 0) AS short_hit,
        CAST(max(outage_min) AS DECIMAL(12, 1)) AS longest_min
    FROM pq_outages
    GROUP BY feeder, CAST(date_trunc('month', start_ts AT TIME ZONE 'Asia/Shanghai') AS DATE)
),
heard AS (
    SELECT
        feeder,
        CAST(date_trunc('month', local_date) AS DATE) AS local_month,
        CAST(CAST(sum(meters_heard) AS DECIMAL(18, 6)) * 100 / nullif(sum(meters), 0) AS DECIMAL(9, 2)) AS heard_pct
    FROM op_collection_days
    GROUP BY feeder, CAST(date_trunc('month', local_date) AS DATE)
),
feeders_seen AS (
    SELECT
        coalesce(r.local_month, s.local_month) AS local_month,
        coalesce(r.feeder, s.feeder) AS feeder,
        CAST(coalesce(r.customers, s.customers) AS DECIMAL(18, 6)) AS customers,
        r.n_outages,
        r.saifi,
        r.saidi_min,
        s.n_events,
        s.sarfi_90,
        s.sarfi_70,
        s.sarfi_50,
        extract(epoch FROM coalesce(r.window_end, s.window_end)) - extract(epoch FROM coalesce(r.window_start, s.window_start)) AS month_s
    FROM pq_reliability_month r
    FULL JOIN pq_sarfi_month s ON s.feeder = r.feeder AND s.local_month = r.local_month
),
rows_of_feeders AS (
    SELECT
        f.*,
        -- A month with any outage counts the short ones too, and 0 is then 0.
        CASE WHEN f.n_outages IS NOT NULL THEN coalesce(o.n_short, 0) END AS n_short,
        CASE WHEN f.n_outages IS NOT NULL THEN coalesce(o.short_hit, 0) END AS short_hit,
        o.longest_min,
        h.heard_pct
    FROM feeders_seen f
    LEFT JOIN short_outages o ON o.feeder = f.feeder AND o.local_month = f.local_month
    LEFT JOIN heard h ON h.feeder = f.feeder AND h.local_month = f.local_month
),
levels AS (
    SELECT l.level, CASE l.level WHEN 'all' THEN 'all' ELSE f.feeder END AS name, f.*
    FROM rows_of_feeders f
    CROSS JOIN (VALUES ('all'), ('feeder')) AS l (level)
),
sums AS (
    SELECT
        local_month,
        level,
        name,
        CAST(sum(customers) AS DECIMAL(18, 0)) AS customers,
        sum(n_outages) AS outages,
        sum(n_short) AS short_outages,
        max(longest_min) AS longest_min,
        sum(CAST(saifi AS DECIMAL(18, 6)) * customers) / nullif(sum(customers), 0) AS saifi,
        sum(CAST(saidi_min AS DECIMAL(18, 6)) * customers) / nullif(sum(customers), 0) AS saidi_min,
        CAST(sum(short_hit) AS DECIMAL(18, 6)) / nullif(sum(customers), 0) AS maifi,
        sum(n_events) AS voltage_events,
        sum(CAST(sarfi_90 AS DECIMAL(18, 6)) * customers) / nullif(sum(customers), 0) AS sarfi_90,
        sum(CAST(sarfi_70 AS DECIMAL(18, 6)) * customers) / nullif(sum(customers), 0) AS sarfi_70,
        sum(CAST(sarfi_50 AS DECIMAL(18, 6)) * customers) / nullif(sum(customers), 0) AS sarfi_50,
        max(month_s) AS month_s,
        min(heard_pct) AS heard_pct
    FROM levels
    GROUP BY local_month, level, name
)
SELECT
    local_month,
    name AS feeder,
    customers,
    CAST(saidi_min AS DECIMAL(12, 3)) AS saidi_min,
    CAST(saifi AS DECIMAL(12, 4)) AS saifi,
    CAST(saidi_min / nullif(saifi, 0) AS DECIMAL(12, 2)) AS caidi_min,
    CAST(maifi AS DECIMAL(12, 4)) AS maifi,
    CAST(100 - CAST(saidi_min AS DOUBLE) * 6000 / month_s AS DECIMAL(9, 5)) AS asai_pct,
    outages,
    short_outages,
    longest_min,
    CAST(sarfi_90 AS DECIMAL(12, 4)) AS sarfi_90,
    CAST(sarfi_70 AS DECIMAL(12, 4)) AS sarfi_70,
    CAST(sarfi_50 AS DECIMAL(12, 4)) AS sarfi_50,
    voltage_events,
    heard_pct
FROM sums
ORDER BY local_month DESC, level, saidi_min DESC NULLS LAST, name
