/*---
id          = "pq_thd_voltage"
kind        = "alert"
title       = "Harmonic distortion of the voltage above the limit of its voltage class"
title_zh    = "电压总谐波畸变率超限"
severity    = "warning"
entity      = "meter_id"
standard    = "GB/T 14549-1993"
clause      = "4, table 1"
category    = "pq"
unit        = "%"
owner       = "power-quality"
description = """
Once a day: the total harmonic distortion of the worst phase, by its 95 % value in pq_harmonic_days, above the limit of its voltage
class (5 % at 380 V, 4 % at 6 and 10 kV, 3 % at 35 and 66 kV, 2 % at 110 kV, in `pq_limits`). Lasting distortion heats transformers and
capacitors and disturbs electronics. Phases without enough values do not count; with no phase left the day gives no verdict
(`firing` is null) and an open alert stays. pq_harmonic_ratio judges the orders by themselves and points to the cause.
"""
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    bool_or(verdict = 'fail') FILTER (WHERE verdict <> 'insufficient_data') AS firing,
    max(p95_pct) FILTER (WHERE verdict <> 'insufficient_data') AS measured,
    max(limit_pct) AS limit_high,
    '%' AS unit,
    max(p95_pct) FILTER (WHERE phase = 'a') AS p95_a_pct,
    max(p95_pct) FILTER (WHERE phase = 'b') AS p95_b_pct,
    max(p95_pct) FILTER (WHERE phase = 'c') AS p95_c_pct,
    count(*) FILTER (WHERE verdict <> 'insufficient_data') AS phases_judged,
    min(coverage_pct) AS lowest_coverage_pct,
    max(basis) AS basis,
    max(flag_policy) AS flag_policy
FROM pq_harmonic_days
WHERE quantity = 'thd_u'
GROUP BY meter_id, window_start, window_end
