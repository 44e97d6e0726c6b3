/*---
id          = "pq_unbalance_week"
kind        = "table"
title       = "Week of 10-minute voltage unbalance against GB/T 15543"
title_zh    = "三相电压不平衡度周评估(国标)"
standard    = "GB/T 15543-2008"
clause      = "4.1, 6"
category    = "pq"
entity      = "meter_id"
unit        = "%"
owner       = "power-quality"
description = """
One row per three-phase point and week (from Monday 00:00 UTC): the 95 % value of the negative-sequence unbalance (the largest after
the largest 5 % of the intervals are left out) and the largest interval, against the limits `unbalance_u` of scheme `GB` (2 % and 4 %
at a point of common coupling). The unbalance is that of pq_readings: phase voltages without angles do not give it. A value equal to a
limit is inside. `highest_reading_pct` shows a peak that the largest interval hides. The same week against EN 50160 is in
pq_en50160_week, what a single user contributes in pq_user_unbalance_week. Verdicts are `pass`, `fail` or, below `min_coverage_pct`
valid intervals, `insufficient_data`. A row needs both limits to be valid at the end of the week.
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
    w.p95_pct,
    l.limit_high AS limit_p95_pct,
    w.highest_pct,
    s.limit_high AS limit_highest_pct,
    w.highest_reading_pct,
    CASE
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
        meter_id,
        line_v,
        window_start,
        window_end,
        count(*) AS n_intervals,
        count(*) FILTER (WHERE NOT left_out) AS n_valid,
        count(*) FILTER (WHERE flagged) AS n_flagged,
        TRY_CAST(gb_percentile_95(CASE WHEN NOT left_out THEN CAST(value AS DOUBLE) END) AS DECIMAL(18, 6)) AS p95_pct,
        max(value) FILTER (WHERE NOT left_out) AS highest_pct,
        max(highest) FILTER (WHERE NOT left_out) AS highest_reading_pct,
        min(basis_rank) FILTER (WHERE NOT left_out) AS min_basis_rank,
        max(flag_policy) AS flag_policy
    FROM TUMBLE(
        (
            SELECT meter_id, window_start AS at, line_v, flagged, left_out, flag_policy, basis_rank, value, highest
            FROM pq_intervals
            WHERE quantity = 'unbalance_u'
        ),
        at,
        INTERVAL '7 days',
        TIMESTAMP '1970-01-05T00:00:00Z'
    )
    GROUP BY meter_id, line_v, window_start, window_end
) w
JOIN pq_limits l ON l.scheme = 'GB' AND l.quantity = 'unbalance_u' AND l.statistic = 'p95'
    AND w.line_v > l.line_v_above AND w.line_v <= l.line_v_upto
JOIN pq_limits s ON s.scheme = 'GB' AND s.quantity = 'unbalance_u' AND s.statistic = 'max'
    AND w.line_v > s.line_v_above AND w.line_v <= s.line_v_upto
