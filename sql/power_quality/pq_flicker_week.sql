/*---
id          = "pq_flicker_week"
kind        = "table"
title       = "Week of long-term flicker against EN 50160 and GB/T 12326"
title_zh    = "长时闪变周评估"
standard    = "EN 50160:2010"
clause      = "4.2.3.2, 5.2.3.2"
category    = "pq"
entity      = ["meter_id", "limit_id"]
unit        = "1"
owner       = "power-quality"
description = """
One row per point, week (from Monday 00:00 UTC) and limit `plt` in `pq_limits`. Scheme `EN`: 1 in 95 % of the week; scheme `GB`: all
values of the week up to 1.0 (0.8 above 110 kV). A value equal to the limit is inside. A block that is left out or lacks one of its
twelve values counts as flagged or missing, not as inside. Below `min_coverage_pct` of the 84 blocks the verdict is
`insufficient_data`. A limit without a share (`GB`) asks for all.
"""
---*/
SELECT
    meter_id,
    'plt' AS quantity,
    'all' AS phase,
    CAST(0 AS BIGINT) AS harmonic_order,
    limit_id,
    window_start,
    window_end,
    n_valid,
    n_flagged,
    greatest(n_expected - n_blocks, 0) AS n_missing,
    round(100 * CAST(n_valid AS DOUBLE) / n_expected, 6) AS coverage_pct,
    n_inside,
    round(100 * CAST(n_inside AS DOUBLE) / nullif(n_valid, 0), 6) AS inside_share_pct,
    share_pct AS required_share_pct,
    lowest,
    highest,
    CAST(NULL AS DECIMAL(15, 6)) AS limit_low,
    limit_high,
    unit,
    CASE
        WHEN n_valid * 100 < min_coverage_pct * n_expected OR n_valid = 0 THEN 'insufficient_data'
        WHEN n_inside * 100 >= coalesce(share_pct, 100) * n_valid THEN 'pass'
        ELSE 'fail'
    END AS verdict,
    CASE min_basis_rank WHEN 3 THEN 'class_a' WHEN 2 THEN 'aggregated' ELSE 'instant' END AS basis,
    flag_policy,
    standard,
    clause
FROM (
    SELECT
        meter_id,
        limit_id,
        window_start,
        window_end,
        limit_high,
        unit,
        share_pct,
        min_coverage_pct,
        standard,
        clause,
        CAST(604800 / interval_s AS BIGINT) AS n_expected,
        count(value) AS n_blocks,
        count(value) FILTER (WHERE NOT left_out) AS n_valid,
        count(value) FILTER (WHERE flagged) AS n_flagged,
        count(value) FILTER (WHERE NOT left_out AND value <= limit_high) AS n_inside,
        min(value) FILTER (WHERE NOT left_out) AS lowest,
        max(value) FILTER (WHERE NOT left_out) AS highest,
        min(basis_rank) FILTER (WHERE NOT left_out) AS min_basis_rank,
        max(flag_policy) AS flag_policy
    FROM TUMBLE(
        (
            SELECT
                meter_id, window_start AS at, value, flagged, left_out, flag_policy, basis_rank,
                limit_id, limit_high, unit, share_pct, min_coverage_pct, interval_s, standard, clause
            FROM pq_plt_blocks
        ),
        at,
        INTERVAL '7 days',
        TIMESTAMP '1970-01-05T00:00:00Z'
    )
    GROUP BY meter_id, limit_id, window_start, window_end, limit_high, unit, share_pct, min_coverage_pct, interval_s, standard, clause
) w
