/*---
id          = "pq_user_unbalance_week"
kind        = "table"
title       = "Week of the voltage unbalance that a user causes at the point of common coupling"
title_zh    = "用户引起的负序电压不平衡度周评估"
standard    = "GB/T 15543-2008"
clause      = "4.2, annex A"
category    = "pq"
entity      = "meter_id"
unit        = "%"
owner       = "power-quality"
description = """
What a single user adds to the negative-sequence voltage: the root of 3 times its negative-sequence current times the line voltage over
the short-circuit capacity `sk_mva` of the point. The current is that of the monitor (`i2_a`), or of three-wire points from the
magnitudes of the three line currents; four-wire points without `i2_a` give none. The 95 % value of the 10-minute intervals of a week is
held against 1.3 %, the largest against 2.6 % (limits `unbalance_user` of scheme `GB`); a value equal to a limit is inside.
Without `sk_mva` the verdict is `not_assessable`; below `min_coverage_pct` of the 1008 intervals it is `insufficient_data`. The formula
holds for a network without capacitors nearby, and currents must be on the primary side.
"""
---*/
SELECT
    w.meter_id,
    w.window_start,
    w.window_end,
    w.n_valid,
    w.n_flagged,
    1008 - w.n_intervals AS n_missing,
    round(100 * CAST(w.n_valid AS DOUBLE) / 1008, 6) AS coverage_pct,
    w.p95_a,
    w.highest_a,
    w.sk_mva,
    w.p95_pct,
    l.limit_high AS limit_p95_pct,
    w.highest_pct,
    s.limit_high AS limit_highest_pct,
    CASE
        WHEN w.sk_mva IS NULL OR w.sk_mva <= 0 THEN 'not_assessable'
        WHEN w.n_valid * 100 < l.min_coverage_pct * 1008 OR w.n_valid = 0 THEN 'insufficient_data'
        WHEN w.p95_pct <= l.limit_high AND w.highest_pct <= s.limit_high THEN 'pass'
        ELSE 'fail'
    END AS verdict,
    CASE w.min_basis_rank WHEN 3 THEN 'class_a' WHEN 2 THEN 'aggregated' ELSE 'instant' END AS basis,
    w.flag_policy,
    l.standard,
    l.clause
FROM (
    SELECT
        i.*,
        p.sk_mva,
        CASE WHEN p.sk_mva > 0 THEN
            TRY_CAST(sqrt(3.0) * CAST(i.p95_a AS DOUBLE) * CAST(i.line_v AS DOUBLE) / CAST(p.sk_mva AS DOUBLE) / 10000 AS DECIMAL(15, 6))
        END AS p95_pct,
        CASE WHEN p.sk_mva > 0 THEN
            TRY_CAST(sqrt(3.0) * CAST(i.highest_a AS DOUBLE) * CAST(i.line_v AS DOUBLE) / CAST(p.sk_mva AS DOUBLE) / 10000 AS DECIMAL(15, 6))
        END AS highest_pct
    FROM (
        SELECT
            meter_id,
            line_v,
            window_start,
            window_end,
            count(*) AS n_intervals,
            count(*) FILTER (WHERE NOT left_out) AS n_valid,
            count(*) FILTER (WHERE flagged) AS n_flagged,
            TRY_CAST(gb_percentile_95(CASE WHEN NOT left_out THEN CAST(value AS DOUBLE) END) AS DECIMAL(18, 6)) AS p95_a,
            max(value) FILTER (WHERE NOT left_out) AS highest_a,
            min(basis_rank) FILTER (WHERE NOT left_out) AS min_basis_rank,
            max(flag_policy) AS flag_policy
        FROM TUMBLE(
            (
                SELECT meter_id, window_start AS at, line_v, flagged, left_out, flag_policy, basis_rank, value
                FROM pq_intervals
                WHERE quantity = 'negative_sequence_i'
            ),
            at,
            INTERVAL '7 days',
            TIMESTAMP '1970-01-05T00:00:00Z'
        )
        GROUP BY meter_id, line_v, window_start, window_end
    ) i
    JOIN pq_points p ON p.meter_id = i.meter_id
) w
JOIN pq_limits l ON l.scheme = 'GB' AND l.quantity = 'unbalance_user' AND l.statistic = 'p95'
    AND w.line_v > l.line_v_above AND w.line_v <= l.line_v_upto
JOIN pq_limits s ON s.scheme = 'GB' AND s.quantity = 'unbalance_user' AND s.statistic = 'max'
    AND w.line_v > s.line_v_above AND w.line_v <= s.line_v_upto
