/*---
id          = "rp_line_loss"
title       = "Where is energy lost, by station area and feeder, how complete are the meters, and who is suspect?"
title_zh    = "台区与馈线线损、采集完整率与嫌疑用户"
description = """
For the line loss desk. One row per month and station area (pq_area_loss_days, from registers) or feeder (rd_line_loss, from powers),
those with the highest share of loss first. Only days that can be believed are added up (`days_judged` of `days`): of an area those
with all gate meters and 98 % of the members, of a feeder those on which every registered customer was read and both sides are covered
to 95 %. `loss_pct` is the sum of the losses over the sum of what came in. `abnormal_days` are judged days above 12 % or below 0.
`complete_pct` is the share of meters that were complete, of all days; where it is low, the missing meters are the first thing to
repair. NULL loss: no day could be judged. `suspects` are the meters on the lists of an_theft_top whose weeks end in the month, with
their highest score: a hint whom to visit, no proof. It cannot tell technical loss from theft, and does not know of
switching between feeders that the registers do not say.
"""
owner       = "distribution"
duckdb      = true
---*/
WITH customers AS (
    SELECT f.feeder, f.window_start, count(*) AS customers
    FROM rd_line_loss f
    JOIN meters m ON m.feeder = f.feeder AND m.kind = 'customer'
        AND (m.valid_from IS NULL OR m.valid_from <= f.window_start) AND (m.valid_to IS NULL OR f.window_end <= m.valid_to)
    GROUP BY f.feeder, f.window_start
),
days AS (
    SELECT
        'area' AS level,
        area_id AS name,
        CAST(date_trunc('month', local_date) AS DATE) AS local_month,
        verdict <> 'insufficient_data' AS judged,
        verdict = 'abnormal' AS abnormal,
        CAST(supplied_kwh + generated_kwh AS DECIMAL(24, 6)) AS in_kwh,
        CAST(loss_kwh AS DECIMAL(24, 6)) AS loss_kwh,
        meters,
        meters_complete
    FROM pq_area_loss_days
    UNION ALL
    SELECT
        'feeder',
        f.feeder,
        CAST(date_trunc('month', f.local_date) AS DATE),
        f.meters_sold >= coalesce(c.customers, 0) AND f.covered_supply_pct >= 95 AND f.covered_sold_pct >= 95,
        f.meters_sold >= coalesce(c.customers, 0) AND f.covered_supply_pct >= 95 AND f.covered_sold_pct >= 95
            AND (f.loss_pct > 12 OR f.loss_pct < 0),
        CAST(f.supplied_kwh AS DECIMAL(24, 6)),
        CAST(f.loss_kwh AS DECIMAL(24, 6)),
        coalesce(c.customers, f.meters_sold),
        f.meters_sold
    FROM rd_line_loss f
    LEFT JOIN customers c ON c.feeder = f.feeder AND c.window_start = f.window_start
),
months AS (
    SELECT
        level,
        name,
        local_month,
        count(*) AS days,
        count(*) FILTER (WHERE judged) AS days_judged,
        count(*) FILTER (WHERE abnormal) AS abnormal_days,
        sum(in_kwh) FILTER (WHERE judged) AS in_kwh,
        sum(loss_kwh) FILTER (WHERE judged) AS loss_kwh,
        CAST(
            CAST(sum(loss_kwh) FILTER (WHERE judged) AS DECIMAL(24, 6)) * 100 / nullif(sum(in_kwh) FILTER (WHERE judged), 0) AS DECIMAL(12, 4)
        ) AS loss_pct,
        CAST(CAST(sum(meters_complete) AS DECIMAL(18, 6)) * 100 / nullif(sum(meters), 0) AS DECIMAL(9, 2)) AS complete_pct
    FROM days
    GROUP BY level, name, local_month
),
scores AS (
    SELECT
        meter_id,
        CAST(date_trunc('month', window_end AT TIME ZONE 'Asia/Shanghai') AS DATE) AS local_month,
        max(score) AS score
    FROM an_theft_top
    GROUP BY meter_id, CAST(date_trunc('month', window_end AT TIME ZONE 'Asia/Shanghai') AS DATE)
),
places AS (
    SELECT 'area' AS level, area_id AS name, meter_id, valid_from, valid_to FROM area_meters
    UNION ALL
    SELECT 'feeder', feeder, meter_id, valid_from, valid_to FROM meters
),
suspects AS (
    SELECT level, name, local_month, string_agg(concat(meter_id, ' (', CAST(score AS VARCHAR), ')'), ', ' ORDER BY score DESC, meter_id) AS suspects
    FROM (
        SELECT DISTINCT p.level, p.name, s.local_month, s.meter_id, s.score
        FROM scores s
        JOIN places p ON p.meter_id = s.meter_id
            AND (p.valid_from IS NULL OR CAST(p.valid_from AT TIME ZONE 'Asia/Shanghai' AS DATE) <= s.local_month)
            AND (p.valid_to IS NULL OR CAST(p.valid_to AT TIME ZONE 'Asia/Shanghai' AS DATE) > s.local_month)
    ) d
    GROUP BY level, name, local_month
)
SELECT
    m.local_month,
    m.level,
    m.name,
    m.loss_pct,
    m.loss_kwh,
    m.in_kwh,
    m.days,
    m.days_judged,
    m.abnormal_days,
    m.complete_pct,
    s.suspects
FROM months m
LEFT JOIN suspects s ON s.level = m.level AND s.name = m.name AND s.local_month = m.local_month
ORDER BY m.local_month DESC, m.level, m.loss_pct DESC NULLS LAST, m.name
