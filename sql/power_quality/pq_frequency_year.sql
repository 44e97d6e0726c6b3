/*---
id          = "pq_frequency_year"
kind        = "table"
title       = "Year of 10-second frequency against EN 50160"
title_zh    = "频率年评估(EN 50160)"
standard    = "EN 50160:2010"
clause      = "4.2.1, 5.2.1"
category    = "pq"
entity      = ["meter_id", "limit_id"]
unit        = "Hz"
owner       = "power-quality"
description = """
One row per point, UTC year and limit of pq_frequency_values: +/-1 % for 99.5 % of the year and +4/-6 % for all of it. What is kept
of the year is a few counters a point, not its three million values. A value equal to a limit is inside. The row comes when the year
is over; weeks are in pq_frequency_week. Below `min_coverage_pct` of the values of 10 s the verdict is `insufficient_data`.
"""
---*/
SELECT
    meter_id,
    quantity,
    'all' AS phase,
    CAST(0 AS BIGINT) AS harmonic_order,
    limit_id,
    window_start,
    window_end,
    n_valid,
    n_flagged,
    greatest(n_expected - n_intervals, 0) AS n_missing,
    round(100 * CAST(n_valid AS DOUBLE) / n_expected, 6) AS coverage_pct,
    n_inside,
    round(100 * CAST(n_inside AS DOUBLE) / nullif(n_valid, 0), 6) AS inside_share_pct,
    share_pct AS required_share_pct,
    lowest,
    highest,
    limit_low_hz AS limit_low,
    limit_high_hz AS limit_high,
    'Hz' AS unit,
    CASE
        WHEN n_valid * 100 < min_coverage_pct * n_expected OR n_valid = 0 THEN 'insufficient_data'
        WHEN n_inside * 100 >= share_pct * n_valid THEN 'pass'
        ELSE 'fail'
    END AS verdict,
    CASE min_basis_rank WHEN 3 THEN 'class_a' WHEN 2 THEN 'aggregated' ELSE 'instant' END AS basis,
    flag_policy,
    standard,
    clause
FROM (
    SELECT
        meter_id,
        quantity,
        limit_id,
        window_start,
        window_end,
        limit_low_hz,
        limit_high_hz,
        share_pct,
        min_coverage_pct,
        standard,
        clause,
        CAST((extract(epoch FROM window_end) - extract(epoch FROM window_start)) / interval_s AS BIGINT) AS n_expected,
        count(*) AS n_intervals,
        count(*) FILTER (WHERE NOT left_out) AS n_valid,
        count(*) FILTER (WHERE flagged) AS n_flagged,
        count(*) FILTER (WHERE NOT left_out AND inside) AS n_inside,
        min(mean_hz) FILTER (WHERE NOT left_out) AS lowest,
        max(mean_hz) FILTER (WHERE NOT left_out) AS highest,
        min(basis_rank) FILTER (WHERE NOT left_out) AS min_basis_rank,
        max(flag_policy) AS flag_policy
    FROM TUMBLE(pq_frequency_values, at, INTERVAL '12 months', 'UTC')
    GROUP BY meter_id, quantity, limit_id, window_start, window_end, limit_low_hz, limit_high_hz, share_pct, min_coverage_pct, interval_s,
        standard, clause
) w
