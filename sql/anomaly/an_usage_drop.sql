/*---
id          = "an_usage_drop"
kind        = "alert"
title       = "Customer uses far less than in the weeks before"
title_zh    = "客户用电量骤降"
severity    = "warning"
entity      = "meter_id"
category    = "anomaly"
unit        = "kWh"
standard    = "internal"
owner       = "analytics"
description = """
Compares the energy of each week (an_usage_weeks) with the median of the eight weeks before, and with the median of the same
weeks a year ago (51 to 53 weeks back) where they are known, and fires when it is more than `drop_pct` below both: a
customer who always uses little in this season does not fire. Customers with a usual week up to `min_kwh` are not judged.
With fewer than `min_weeks` of the eight, or without the energy of the week, the verdict is `insufficient_data`. A drop
may be a theft, an empty house, a new roof of solar cells or a failing meter; an_theft_score weighs it with other signs.
Resolves with a week that is within, also because the low weeks have become the usual ones, after five. Kept are 53 rows
for each meter. Not seen: a theft that began before the first week.
"""
[params]
drop_pct  = 50.0
min_kwh   = 5.0
min_weeks = 4
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CASE verdict WHEN 'dropped' THEN TRUE WHEN 'usual' THEN FALSE END AS firing,
    verdict,
    kwh AS measured,
    CAST(usual_kwh * (100 - $drop_pct) / 100 AS DECIMAL(18, 4)) AS limit_low,
    'kWh' AS unit,
    usual_kwh,
    TRY_CAST((usual_kwh - kwh) * 100 / nullif(usual_kwh, 0) AS DECIMAL(18, 6)) AS below_pct,
    last_year_kwh,
    weeks_before,
    week_from,
    feeder
FROM (
    SELECT
        *,
        CASE
            WHEN kwh IS NULL OR weeks_before < $min_weeks THEN 'insufficient_data'
            WHEN usual_kwh <= $min_kwh THEN 'too_little'
            WHEN kwh * 100 >= usual_kwh * (100 - $drop_pct) THEN 'usual'
            WHEN kwh * 100 >= last_year_kwh * (100 - $drop_pct) THEN 'usual'
            ELSE 'dropped'
        END AS verdict
    FROM (
        SELECT
            meter_id,
            window_start,
            window_end,
            week_from,
            feeder,
            kwh,
            CAST(median(kwh) OVER before AS DECIMAL(22, 8)) AS usual_kwh,
            count(kwh) OVER before AS weeks_before,
            CAST(median(kwh) OVER last_year AS DECIMAL(22, 8)) AS last_year_kwh
        FROM an_usage_weeks
        WINDOW before AS (
                PARTITION BY meter_id ORDER BY window_start
                RANGE BETWEEN INTERVAL '56 days' PRECEDING AND INTERVAL '7 days' PRECEDING
            ),
            last_year AS (
                PARTITION BY meter_id ORDER BY window_start
                RANGE BETWEEN INTERVAL '371 days' PRECEDING AND INTERVAL '357 days' PRECEDING
            )
    ) w
) v
