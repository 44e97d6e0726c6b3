/*---
id          = "pq_harmonic_current"
kind        = "alert"
title       = "Harmonic current of one order above what the point may inject"
title_zh    = "谐波电流超过允许值"
severity    = "warning"
entity      = ["meter_id", "harmonic_order"]
standard    = "GB/T 14549-1993"
clause      = "5, table 2, annex B and C"
category    = "pq"
unit        = "A"
owner       = "power-quality"
description = """
Once a day and for each order: the 95 % value of the harmonic current above the limit in pq_harmonic_current_days, which follows the
short-circuit capacity of the point and the user's share. Days that cannot be assessed or lack data say nothing (`firing` is null): an
open alert stays, and no alert is no proof; look for `not_assessable` in that table.
"""
---*/
SELECT
    meter_id,
    harmonic_order,
    window_start,
    window_end,
    CASE verdict WHEN 'fail' THEN true WHEN 'pass' THEN false END AS firing,
    p95_a AS measured,
    limit_a AS limit_high,
    'A' AS unit,
    verdict,
    reason,
    all_users_a,
    sk_mva,
    n_valid,
    coverage_pct,
    basis,
    flag_policy
FROM pq_harmonic_current_days
