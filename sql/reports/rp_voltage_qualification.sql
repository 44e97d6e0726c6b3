/*---
id          = "rp_voltage_qualification"
title       = "How good is the voltage, by organisation, feeder, transformer and month, and which points are the worst?"
title_zh    = "各单位、馈线、台区电压合格率及最差监测点"
description = """
For those who answer for the voltage of an area and decide where to regulate it. One row per month and organisation, feeder,
transformer and point: the share of the reported voltages inside the limits, of all reported while the supply was on. It is the rate
of sums (pq_voltage_month), never the mean of rates. `combined_rate_pct` of an organisation weighs the classes of points
(pq_voltage_combined). Transformers and points are the 100 worst of the month; `place` counts from the worst.
How far to trust a row: `points` are those registered at the end of the month, `points_heard` those of which any voltage came,
`points_insufficient` those with too few days, and `coverage_pct` the share of the days of all points on which values came. The month
that still runs, and one that began before the archive, have a low coverage. A point that was not heard has no rate: NULL is not 0.
It cannot say what the voltage was between the readings, and values of plain meters are an indication, not a verdict of a standard.
Transformer and feeder are those of `meters`, the organisation that of `pq_points`; points without one are not in that level.
"""
owner       = "power-quality"
duckdb      = true
---*/
WITH months AS (
    SELECT DISTINCT local_month, window_end, days_in_month FROM pq_voltage_month
),
points AS (
    SELECT
        t.local_month,
        t.window_end,
        t.days_in_month,
        m.meter_id,
        m.feeder,
        m.transformer,
        p.org_id,
        v.meter_id AS heard_id,
        v.days,
        v.samples,
        v.outside_high,
        v.outside_low,
        v.outage_samples,
        v.verdict
    FROM months t
    -- The version of the last moment of the month.
    JOIN meters m ON (m.valid_from IS NULL OR m.valid_from < t.window_end) AND (m.valid_to IS NULL OR t.window_end <= m.valid_to)
    LEFT JOIN pq_points p ON p.meter_id = m.meter_id
        AND (p.valid_from IS NULL OR p.valid_from < t.window_end) AND (p.valid_to IS NULL OR t.window_end <= p.valid_to)
    LEFT JOIN pq_voltage_month v ON v.meter_id = m.meter_id AND v.local_month = t.local_month
),
members AS (
    SELECT
        l.level,
        CASE l.level WHEN 'organisation' THEN p.org_id WHEN 'feeder' THEN p.feeder WHEN 'transformer' THEN p.transformer ELSE p.meter_id END AS name,
        p.*
    FROM points p
    CROSS JOIN (VALUES ('organisation'), ('feeder'), ('transformer'), ('point')) AS l (level)
),
rates AS (
    SELECT
        local_month,
        level,
        name,
        count(*) AS points,
        count(heard_id) AS points_heard,
        count(*) FILTER (WHERE verdict = 'insufficient_data') AS points_insufficient,
        CAST(CAST(coalesce(sum(days), 0) AS DECIMAL(18, 6)) * 100 / sum(days_in_month) AS DECIMAL(9, 2)) AS coverage_pct,
        sum(samples) AS samples,
        sum(outside_high) AS outside_high,
        sum(outside_low) AS outside_low,
        sum(outage_samples) AS outage_samples,
        CAST(
            CAST(sum(samples) - sum(outside_high) - sum(outside_low) AS DECIMAL(18, 6)) * 100 / nullif(sum(samples), 0) AS DECIMAL(9, 4)
        ) AS rate_pct
    FROM members
    WHERE name <> ''
    GROUP BY local_month, level, name
),
ranked AS (
    SELECT *, row_number() OVER (PARTITION BY local_month, level ORDER BY rate_pct NULLS LAST, name) AS place
    FROM rates
)
SELECT
    r.local_month,
    r.level,
    r.place,
    r.name,
    r.rate_pct,
    c.combined_rate_pct,
    c.classes_missing,
    r.points,
    r.points_heard,
    r.points_insufficient,
    r.coverage_pct,
    r.samples,
    r.outside_high,
    r.outside_low,
    r.outage_samples
FROM ranked r
LEFT JOIN pq_voltage_combined c ON r.level = 'organisation' AND c.org_id = r.name AND c.local_month = r.local_month
WHERE r.place <= 100 OR r.level IN ('organisation', 'feeder')
ORDER BY
    r.local_month DESC,
    CASE r.level WHEN 'organisation' THEN 1 WHEN 'feeder' THEN 2 WHEN 'transformer' THEN 3 ELSE 4 END,
    r.place
