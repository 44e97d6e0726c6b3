/*---
id          = "an_loss_weeks"
kind        = "table"
title       = "Line loss of each feeder and week against the weeks before"
title_zh    = "馈线周线损及其上升量"
category    = "anomaly"
entity      = "feeder"
unit        = "kWh"
standard    = "internal"
owner       = "analytics"
key         = "feeder"
description = """
Adds up the days of rd_line_loss to weeks (from Monday, UTC+8). A day counts only if its supplied and sold energy are both
covered to `covered_pct`; a week needs `min_days` such days, and is scaled to seven, else its loss is NULL. `usual_kwh` is
the median of the up to four weeks before, `rise_kwh` what the loss is above it; NULL with fewer than two of them.
"""
[params]
covered_pct = 95.0
min_days    = 5
---*/
SELECT
    feeder,
    window_start,
    window_end,
    loss_kwh,
    CASE WHEN weeks_before >= 2 THEN usual_kwh END AS usual_kwh,
    CASE WHEN weeks_before >= 2 THEN loss_kwh - usual_kwh END AS rise_kwh,
    supplied_kwh,
    days,
    weeks_before
FROM (
    SELECT
        feeder,
        window_start,
        window_end,
        loss_kwh,
        supplied_kwh,
        days,
        CAST(median(loss_kwh) OVER before AS DECIMAL(22, 6)) AS usual_kwh,
        count(loss_kwh) OVER before AS weeks_before
    FROM (
        SELECT
            feeder,
            window_start,
            window_end,
            CASE WHEN days >= $min_days THEN CAST(loss_kwh * 7 / days AS DECIMAL(21, 6)) END AS loss_kwh,
            CASE WHEN days >= $min_days THEN CAST(supplied_kwh * 7 / days AS DECIMAL(21, 6)) END AS supplied_kwh,
            days
        FROM (
            SELECT
                feeder,
                window_start,
                window_end,
                count(*) AS days,
                CAST(sum(loss_kwh) AS DECIMAL(24, 6)) AS loss_kwh,
                CAST(sum(supplied_kwh) AS DECIMAL(24, 6)) AS supplied_kwh
            FROM TUMBLE((
                SELECT
                    feeder,
                    window_start AS at,
                    TRY_CAST(loss_kwh AS DECIMAL(18, 6)) AS loss_kwh,
                    TRY_CAST(supplied_kwh AS DECIMAL(18, 6)) AS supplied_kwh
                FROM rd_line_loss
                WHERE covered_supply_pct >= $covered_pct AND covered_sold_pct >= $covered_pct
            ), at, INTERVAL '7 days', 'Asia/Shanghai', DATE '1970-01-05')
            GROUP BY feeder, window_start, window_end
        ) s
    ) l
    WINDOW before AS (
        PARTITION BY feeder ORDER BY window_start
        RANGE BETWEEN INTERVAL '28 days' PRECEDING AND INTERVAL '7 days' PRECEDING
    )
) w
