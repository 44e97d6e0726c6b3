/*---
id          = "pq_frequency_days"
kind        = "table"
title       = "Frequency qualification rate of each point and local day"
title_zh    = "频率合格率(日)"
standard    = "GB/T 15945-2008"
clause      = "3.1"
category    = "pq"
entity      = "meter_id"
unit        = "%"
owner       = "power-quality"
description = """
Share of a day's frequency values (UTC+8) that lie within the limit `frequency` of scheme `GB` around `nominal_hz`; a value equal to a
limit is inside. Every reading is one value: the standard takes 1, 3 or 10 s. Zero and blank are no values. Coverage is the share of the
day's quarters of an hour with one; below `min_coverage_pct` of the limit the verdict is `insufficient_data`, else `pass` (all inside) or
`fail`. Rates of months are sums of `n_valid` and `n_outside`.
"""
params      = { nominal_hz = 50.0 }
---*/
SELECT
    d.meter_id,
    d.window_start,
    d.window_end,
    CAST(d.window_start + INTERVAL '8 hours' AS DATE) AS local_date,
    d.n_valid,
    d.n_flagged,
    d.n_outside,
    round(100 * CAST(d.quarters AS DOUBLE) / 96, 6) AS coverage_pct,
    CAST(100 * CAST(d.n_valid - d.n_outside AS DECIMAL(18, 6)) / nullif(d.n_valid, 0) AS DECIMAL(9, 6)) AS rate_pct,
    d.lowest_hz,
    d.highest_hz,
    $nominal_hz + d.limit_low AS limit_low_hz,
    $nominal_hz + d.limit_high AS limit_high_hz,
    CASE
        WHEN d.quarters * 100 < d.min_coverage_pct * 96 OR d.n_valid = 0 THEN 'insufficient_data'
        WHEN d.n_outside = 0 THEN 'pass'
        ELSE 'fail'
    END AS verdict,
    CASE d.min_basis_rank WHEN 3 THEN 'class_a' WHEN 2 THEN 'aggregated' ELSE 'instant' END AS basis,
    d.flag_policy,
    d.standard,
    d.clause
FROM (
    SELECT
        s.meter_id,
        s.window_start,
        s.window_end,
        l.limit_low,
        l.limit_high,
        l.min_coverage_pct,
        l.standard,
        l.clause,
        count(*) FILTER (WHERE NOT s.left_out) AS n_valid,
        count(*) FILTER (WHERE s.flagged) AS n_flagged,
        count(*) FILTER (
            WHERE NOT s.left_out AND (s.freq_hz < $nominal_hz + l.limit_low OR s.freq_hz > $nominal_hz + l.limit_high)
        ) AS n_outside,
        count(DISTINCT CASE WHEN NOT s.left_out THEN date_bin(INTERVAL '15 minutes', s.at) END) AS quarters,
        min(s.freq_hz) FILTER (WHERE NOT s.left_out) AS lowest_hz,
        max(s.freq_hz) FILTER (WHERE NOT s.left_out) AS highest_hz,
        min(s.basis_rank) FILTER (WHERE NOT s.left_out) AS min_basis_rank,
        max(s.flag_policy) AS flag_policy
    FROM TUMBLE(pq_readings, at, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z') s
    JOIN pq_limits l ON l.scheme = 'GB' AND l.quantity = 'frequency' AND s.line_v > l.line_v_above AND s.line_v <= l.line_v_upto
    WHERE s.freq_hz > 0
    GROUP BY s.meter_id, s.window_start, s.window_end, l.limit_low, l.limit_high, l.min_coverage_pct, l.standard, l.clause
) d
