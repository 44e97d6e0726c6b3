/*---
id          = "pq_voltage_month"
kind        = "table"
title       = "Voltage qualification rate of each meter and month"
title_zh    = "月度电压合格率"
standard    = "GB/T 12325-2008"
clause      = "5"
category    = "pq"
entity      = "meter_id"
unit        = "%"
owner       = "power-quality"
description = """
Sum of the days of pq_voltage_qualification in a calendar month (Asia/Shanghai): the share of voltages inside the limits among those
taken while the supply was on; outage is no run time. It is the rate of sums, not the mean of the days. `verdict` compares it with
`target_pct`, which is the company's own; a rate equal to it passes. With rows on less than `min_days_pct` of the month's days the
verdict is `insufficient_data`. Quarters and years: add up `samples`, `outside_high` and `outside_low` of the months. The values are
what meters report, so the basis is `instant`, an indication; flags of dips are not considered here, as the rate counts run time.
"""
params      = { target_pct = 98.0, min_days_pct = 90.0 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_month,
    samples,
    outside_high,
    outside_low,
    outage_samples,
    days,
    days_in_month,
    round(100 * CAST(days AS DOUBLE) / days_in_month, 6) AS coverage_pct,
    CAST(100 * CAST(samples - outside_high - outside_low AS DECIMAL(18, 6)) / samples AS DECIMAL(9, 6)) AS rate_pct,
    CAST(100 * CAST(outside_high AS DECIMAL(18, 6)) / samples AS DECIMAL(9, 6)) AS over_rate_pct,
    CAST(100 * CAST(outside_low AS DECIMAL(18, 6)) / samples AS DECIMAL(9, 6)) AS under_rate_pct,
    $target_pct AS target_pct,
    CASE
        WHEN days * 100 < $min_days_pct * days_in_month THEN 'insufficient_data'
        WHEN 100 * (samples - outside_high - outside_low) >= $target_pct * samples THEN 'pass'
        ELSE 'fail'
    END AS verdict,
    'instant' AS basis
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        sum(samples) AS samples,
        sum(outside_high) AS outside_high,
        sum(outside_low) AS outside_low,
        sum(outage_samples) AS outage_samples,
        count(*) AS days,
        CAST((extract(epoch FROM window_end) - extract(epoch FROM window_start)) / 86400 AS BIGINT) AS days_in_month
    FROM TUMBLE(
        (SELECT meter_id, window_start AS at, samples, outside_high, outside_low, outage_samples FROM pq_voltage_qualification),
        at,
        INTERVAL '1 month',
        'Asia/Shanghai'
    )
    GROUP BY meter_id, window_start, window_end
) m
WHERE samples > 0
