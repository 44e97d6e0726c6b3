/*---
id          = "pq_harmonic_ratio"
kind        = "alert"
title       = "Harmonic or interharmonic voltage of one order above the limit of its voltage class"
title_zh    = "单次谐波或间谐波电压超限"
severity    = "warning"
entity      = ["meter_id", "quantity", "harmonic_order"]
standard    = "GB/T 14549-1993"
clause      = "4, table 1"
category    = "pq"
unit        = "%"
owner       = "power-quality"
description = """
Once a day and for each order of the lists `u_h` and `u_ih`: its 95 % value in pq_harmonic_days above the limit of its voltage class in
`pq_limits`. The order points to the cause: 5 and 7 are rectifiers of six pulses, 3 is single-phase electronics, even ones are half
waves, interharmonics are converters and arc furnaces (severity info, GB/T 24337-2009). A value equal to the limit is inside. A day
without enough values says nothing (`firing` is null), so an open alert stays. Orders above 25 have no limit in this standard.
"""
---*/
SELECT
    meter_id,
    quantity,
    harmonic_order,
    window_start,
    window_end,
    CASE verdict WHEN 'fail' THEN true WHEN 'pass' THEN false END AS firing,
    CASE quantity WHEN 'interharmonic_u' THEN 'info' ELSE 'warning' END AS severity,
    p95_pct AS measured,
    limit_pct AS limit_high,
    '%' AS unit,
    n_valid,
    n_flagged,
    coverage_pct,
    basis,
    flag_policy,
    standard,
    clause
FROM pq_harmonic_days
WHERE quantity IN ('harmonic_u', 'interharmonic_u')
