/*---
id          = "pq_voltage_unbalance"
kind        = "alert"
title       = "Negative-sequence voltage unbalance above 2 %"
severity    = "warning"
entity      = "meter_id"
standard    = "GB/T 15543-2008"
clause      = "4"
category    = "pq"
unit        = "%"
owner       = "power-quality"
description = """
Fires while the 10-minute value of pq_voltage_unbalance_windows exceeds 2 %, critical above 4 %. The standard allows 2 %
for the 95 % value and 4 % at any moment, so a warning is a sign to look, not yet a breach.
"""
params      = { limit_pct = 2.0, limit_short_pct = 4.0 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    unbalance_rms_pct > $limit_pct AS firing,
    CASE WHEN unbalance_rms_pct > $limit_short_pct THEN 'critical' ELSE 'warning' END AS severity,
    unbalance_rms_pct AS measured,
    $limit_pct AS limit_high,
    '%' AS unit,
    unbalance_max_pct,
    samples
FROM pq_voltage_unbalance_windows
