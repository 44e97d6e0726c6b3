/*---
id          = "pq_voltage_rate"
kind        = "alert"
title       = "Voltage qualification rate of a month below its target"
title_zh    = "月度电压合格率低于目标"
severity    = "warning"
entity      = "meter_id"
standard    = "GB/T 12325-2008"
clause      = "5"
category    = "pq"
unit        = "%"
owner       = "power-quality"
description = """
Fires when pq_voltage_month finds the rate of a point below the target that is set there, and resolves with the first month that
reaches it. A month with too few days says nothing. Where the rate is low because of a single day, look at pq_voltage_qualification;
whether voltages are too high or too low tells the cure (tap of the transformer, reactive power, length of the line).
"""
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CASE verdict WHEN 'fail' THEN true WHEN 'pass' THEN false END AS firing,
    rate_pct AS measured,
    target_pct AS limit_low,
    '%' AS unit,
    over_rate_pct,
    under_rate_pct,
    samples,
    outage_samples,
    coverage_pct,
    verdict,
    basis
FROM pq_voltage_month
