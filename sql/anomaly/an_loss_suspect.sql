/*---
id          = "an_loss_suspect"
kind        = "alert"
title       = "Loss of a feeder rose by what a customer uses less"
title_zh    = "线损上升与用户用电下降相符"
severity    = "warning"
entity      = "meter_id"
category    = "anomaly"
unit        = "%"
standard    = "internal"
owner       = "analytics"
description = """
Puts the customers whose energy of the week lies more than `min_drop_pct` below their usual one (an_usage_drop) beside the
loss of their feeder in that week (an_loss_weeks): if the loss rose by more than `min_rise_pct` of the supplied energy, and
the drop of the customer is between `low_pct` and `high_pct` of that rise, the missing energy may still flow there.
`measured` is the drop in percent of the rise. Resolves with a week in which that is not so. Without the loss, or the energy
of the customer, the verdict is `insufficient_data`. Not seen: several thieves of one feeder at once, whose drops add up;
customers without register; feeders of which not all meters are read.
"""
[params]
min_drop_pct = 30.0
min_rise_pct = 1.0
low_pct      = 50.0
high_pct     = 150.0
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CASE verdict WHEN 'matches' THEN TRUE WHEN 'no_match' THEN FALSE END AS firing,
    verdict,
    CASE WHEN rise_kwh > 0 THEN TRY_CAST(drop_kwh * 100 / rise_kwh AS DECIMAL(18, 6)) END AS measured,
    $low_pct AS limit_low,
    $high_pct AS limit_high,
    '%' AS unit,
    feeder,
    kwh,
    usual_kwh,
    drop_kwh,
    rise_kwh,
    supplied_kwh
FROM (
    SELECT
        *,
        CASE
            WHEN rise_kwh IS NULL OR drop_kwh IS NULL THEN 'insufficient_data'
            WHEN rise_kwh * 100 > supplied_kwh * $min_rise_pct
                AND drop_kwh * 100 > usual_kwh * $min_drop_pct
                AND drop_kwh * 100 BETWEEN rise_kwh * $low_pct AND rise_kwh * $high_pct
                THEN 'matches'
            ELSE 'no_match'
        END AS verdict
    FROM (
        SELECT
            u.meter_id,
            u.window_start,
            u.window_end,
            u.feeder,
            u.measured AS kwh,
            TRY_CAST(u.usual_kwh AS DECIMAL(18, 4)) AS usual_kwh,
            CASE
                WHEN u.verdict <> 'insufficient_data' THEN TRY_CAST(u.usual_kwh - u.measured AS DECIMAL(18, 4))
            END AS drop_kwh,
            TRY_CAST(l.rise_kwh AS DECIMAL(18, 4)) AS rise_kwh,
            TRY_CAST(l.supplied_kwh AS DECIMAL(18, 4)) AS supplied_kwh
        FROM an_usage_drop u
        JOIN an_loss_weeks l ON l.feeder = u.feeder AND l.window_start = u.window_start
    ) j
) v
