/*---
id          = "an_loss_correlation"
kind        = "alert"
title       = "Loss of a feeder rises whenever a customer uses less"
title_zh    = "线损与用户用电负相关"
severity    = "info"
entity      = "meter_id"
category    = "anomaly"
unit        = "1"
standard    = "internal"
owner       = "analytics"
description = """
Correlates, over four weeks (a window ends every Sunday, UTC+8), the daily energy of each customer with the daily loss of
the feeder (K. Pearson), and fires when the coefficient is below `min_r`. A feeder's loss grows with load, so honest
customers stand at or above 0; one who steals on some days and not on others stands far below. Days count if both the
customer and the feeder are covered to `covered_pct`. With fewer than `min_days` days, or if one of the two does not vary,
the verdict is `insufficient_data`. Kept are sums for each meter and week. Not seen: a theft that is the same every day,
and which of several customers with the same habits it is.
"""
[params]
min_r       = -0.8
min_days    = 20
covered_pct = 95.0
---*/
WITH points AS (
    SELECT
        d.meter_id,
        m.feeder,
        d.window_start AS at,
        TRY_CAST(d.energy_kwh AS DECIMAL(12, 3)) AS used_kwh,
        TRY_CAST(l.loss_kwh AS DECIMAL(12, 3)) AS loss_kwh
    FROM rd_daily_energy d
    JOIN meters m ON m.meter_id = d.meter_id
    JOIN rd_line_loss l ON l.feeder = m.feeder AND l.window_start = d.window_start
    WHERE m.kind = 'customer' AND d.covered_s * 100 >= 86400 * $covered_pct
        AND l.covered_supply_pct >= $covered_pct AND l.covered_sold_pct >= $covered_pct
),
sums AS (
    SELECT
        meter_id,
        feeder,
        window_start,
        window_end,
        count(*) AS days,
        CAST(sum(used_kwh) AS DOUBLE) AS sx,
        CAST(sum(used_kwh * used_kwh) AS DOUBLE) AS sxx,
        CAST(sum(loss_kwh) AS DOUBLE) AS sy,
        CAST(sum(loss_kwh * loss_kwh) AS DOUBLE) AS syy,
        CAST(sum(used_kwh * loss_kwh) AS DOUBLE) AS sxy
    FROM HOP(points, at, INTERVAL '7 days', INTERVAL '28 days', TIMESTAMP '1970-01-04T16:00:00Z')
    WHERE used_kwh IS NOT NULL AND loss_kwh IS NOT NULL
    GROUP BY meter_id, feeder, window_start, window_end
),
coefficients AS (
    SELECT
        meter_id,
        feeder,
        window_start,
        window_end,
        days,
        round(
            (days * sxy - sx * sy) / nullif(sqrt(greatest(days * sxx - sx * sx, 0)) * sqrt(greatest(days * syy - sy * sy, 0)), 0),
            6
        ) AS r
    FROM sums
)
SELECT
    meter_id,
    window_start,
    window_end,
    CASE WHEN days >= $min_days THEN r < $min_r END AS firing,
    CASE
        WHEN days < $min_days OR r IS NULL THEN 'insufficient_data' WHEN r < $min_r THEN 'against_loss' ELSE 'usual'
    END AS verdict,
    r AS measured,
    CAST($min_r AS DOUBLE) AS limit_low,
    '1' AS unit,
    days,
    feeder
FROM coefficients
