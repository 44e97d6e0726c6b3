/*---
id          = "an_load_season"
kind        = "alert"
title       = "Load of a meter is unusual for this hour of the week"
title_zh    = "负荷与同星期同时段相比异常"
severity    = "info"
entity      = "meter_id"
category    = "anomaly"
unit        = "sigma"
standard    = "internal"
owner       = "analytics"
description = """
Compares the mean power of each hour with what the meter had in the same hour of the weeks before (a mean and a variance
that forget with weight `alpha` a week) and fires beyond `max_z` standard deviations, if it is also more than `min_change_kw`
off. `usual_kw` is that mean. Until `min_weeks` weeks are known for the hour the verdict is `insufficient_data`. Kept are
three numbers for each of the 168 hours of a meter, and a count and a mean beside them: about 10 KB a meter, so narrow the
rule to the meters that matter where there are millions. Not seen: a change that comes slowly, which is learned; a holiday
that falls on a working day looks like an anomaly. The hour is that of UTC, so where clocks change, all shifts for a week.
"""
[params]
alpha         = 0.25
min_weeks     = 4
max_z         = 5.0
min_change_kw = 0.5
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CASE WHEN weeks_before >= $min_weeks THEN abs(z) > $max_z AND abs(mean_kw - usual_kw) > $min_change_kw END AS firing,
    CASE
        WHEN weeks_before < $min_weeks THEN 'insufficient_data'
        WHEN abs(z) <= $max_z OR abs(mean_kw - usual_kw) <= $min_change_kw THEN 'usual'
        WHEN z > 0 THEN 'high'
        ELSE 'low'
    END AS verdict,
    z AS measured,
    -$max_z AS limit_low,
    $max_z AS limit_high,
    'sigma' AS unit,
    mean_kw,
    usual_kw,
    weeks_before,
    samples
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        mean_kw,
        samples,
        z,
        TRY_CAST(
            lag(weighted_kw) OVER (PARTITION BY meter_id, hour_of_week ORDER BY window_start) AS DECIMAL(18, 6)
        ) AS usual_kw,
        row_number() OVER (PARTITION BY meter_id, hour_of_week ORDER BY window_start) - 1 AS weeks_before
    FROM (
        SELECT
            *,
            round(
                seasonal_z(CAST(mean_kw AS DOUBLE), window_start, $alpha) OVER (PARTITION BY meter_id ORDER BY window_start), 6
            ) AS z,
            ewma(CAST(mean_kw AS DOUBLE), $alpha) OVER (PARTITION BY meter_id, hour_of_week ORDER BY window_start) AS weighted_kw
        FROM (
            SELECT
                *,
                CAST(extract(isodow FROM window_start) * 24 + extract(hour FROM window_start) AS BIGINT) AS hour_of_week
            FROM an_load_hours
        ) h
    ) s
) u
