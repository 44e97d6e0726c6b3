/*---
id          = "an_feeder_forecast"
kind        = "alert"
title       = "Load of a feeder is far from its forecast"
title_zh    = "馈线负荷偏离预测"
severity    = "warning"
entity      = ["feeder", "meter_id"]
category    = "anomaly"
unit        = "sigma"
standard    = "internal"
owner       = "analytics"
description = """
Forecasts the mean power of each hour at the head of a feeder (meters whose `kind` matches `kinds`) from the level, its trend
and the profile of a day (additive Holt-Winters with the weights `alpha`, `beta`, `gamma`), and fires if the error is more than
`max_z` standard deviations off the errors before it and more than `min_share` of the forecast. The first day is learnt from and
has no forecast; until `min_errors` errors are known the verdict is `insufficient_data`. An alert that stays open through a
change that stays is closed by the forecast, which follows it: with `alpha` 0.3 half of a step is taken in after two hours. Not
seen: a change that comes as slowly as the trend. Weekends: with a season of 168 hours (`season_hours`) they are forecast too,
once a whole week is known. The day is that of UTC.
"""
[params]
alpha        = 0.3
beta         = 0.01
gamma        = 0.2
season_hours = 24
max_z        = 6.0
min_share    = 0.2
min_errors   = 24
kinds        = "^(feeder_head|transformer|line_monitor)$"
---*/
SELECT
    feeder,
    meter_id,
    window_start,
    window_end,
    CASE WHEN errors_before >= $min_errors THEN abs(z) > $max_z AND abs(mean_kw - forecast_kw) > $min_share * abs(forecast_kw) END AS firing,
    CASE
        WHEN errors_before < $min_errors THEN 'insufficient_data'
        WHEN abs(z) <= $max_z OR abs(mean_kw - forecast_kw) <= $min_share * abs(forecast_kw) THEN 'as_forecast'
        WHEN mean_kw > forecast_kw THEN 'high'
        ELSE 'low'
    END AS verdict,
    z AS measured,
    -$max_z AS limit_low,
    $max_z AS limit_high,
    'sigma' AS unit,
    mean_kw,
    forecast_kw,
    errors_before
FROM (
    SELECT
        *,
        round(ewma_z(CAST(mean_kw - forecast_kw AS DOUBLE), 0.1) OVER (PARTITION BY meter_id ORDER BY window_start), 6) AS z,
        count(forecast_kw) OVER (PARTITION BY meter_id ORDER BY window_start) - 1 AS errors_before
    FROM (
        SELECT
            m.feeder,
            h.meter_id,
            h.window_start,
            h.window_end,
            h.mean_kw,
            TRY_CAST(
                holt_winters(CAST(h.mean_kw AS DOUBLE), h.window_start, $alpha, $beta, $gamma, $season_hours, 60)
                    OVER (PARTITION BY h.meter_id ORDER BY h.window_start) AS DECIMAL(18, 6)
            ) AS forecast_kw
        FROM an_load_hours h
        JOIN meters m ON m.meter_id = h.meter_id
        WHERE m.feeder <> '' AND regexp_like(m.kind, $kinds)
    ) f
) e
WHERE forecast_kw IS NOT NULL
