/*---
id          = "pq_area_loss"
kind        = "alert"
title       = "Line loss of a station area is high or negative"
title_zh    = "台区线损异常"
severity    = "warning"
entity      = "area_id"
standard    = "internal"
category    = "load"
unit        = "%"
owner       = "distribution"
description = """
Fires for a day that pq_area_loss_days calls `watch` (warning) or `abnormal` (critical), and resolves with the first normal day. High loss is
theft, a broken meter or an overloaded line; negative loss is a wrong multiplier or a meter assigned to the wrong area. Days with
missing meters say nothing (`firing` is null), so that a failed collection is no loss. Limits are set in that rule.
"""
---*/
SELECT
    area_id,
    window_start,
    window_end,
    CASE WHEN verdict IN ('watch', 'abnormal') THEN true WHEN verdict = 'normal' THEN false END AS firing,
    CASE verdict WHEN 'abnormal' THEN 'critical' ELSE 'warning' END AS severity,
    loss_pct AS measured,
    0 AS limit_low,
    normal_upto_pct AS limit_high,
    '%' AS unit,
    abnormal_above_pct,
    loss_kwh,
    supplied_kwh,
    generated_kwh,
    consumed_kwh,
    meters,
    meters_complete,
    complete_pct,
    verdict
FROM pq_area_loss_days
