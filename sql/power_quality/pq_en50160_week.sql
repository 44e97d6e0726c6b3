/*---
id          = "pq_en50160_week"
kind        = "table"
title       = "Week of voltage, unbalance and harmonics against EN 50160"
title_zh    = "EN 50160 周评估(电压、不平衡、谐波)"
standard    = "EN 50160:2010"
clause      = "4.2.2, 4.2.4, 4.2.5, 5.2"
category    = "pq"
entity      = ["meter_id", "limit_id", "phase"]
owner       = "power-quality"
description = """
One row per point, week (from Monday 00:00 UTC), phase and limit of scheme `EN` in `pq_limits`: how many 10-minute intervals were
valid, how many of them inside, the worst, and whether their share reaches that of the limit. So supply voltage of low voltage has
two rows a phase: within +/-10 % for 95 % of the week, and within +10/-15 % for all of it. A value equal to a limit is inside.
`lowest` and `highest` are in percent: of voltages, off nominal. Flicker and frequency have intervals of their own: pq_flicker_week,
pq_frequency_week.
`n_flagged` intervals held a dip, swell or interruption; whether they count is said by `flag_policy` (set in pq_readings). Below
`min_coverage_pct` valid intervals of 1008, which is ours and stands beside the limit, the verdict is `insufficient_data`, else `pass`
or `fail`; only with `basis` = `class_a` it is a statement about the standard. A point without any reading in the week, or not in
`pq_points`, has no row. Orders above 25 have no limit in this standard, and low-voltage limits are not lent to medium voltage.
"""
---*/
SELECT
    meter_id,
    quantity,
    phase,
    harmonic_order,
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
    limit_low,
    limit_high,
    unit,
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
        phase,
        harmonic_order,
        limit_id,
        window_start,
        window_end,
        limit_low,
        limit_high,
        unit,
        share_pct,
        min_coverage_pct,
        standard,
        clause,
        CAST(604800 / interval_s AS BIGINT) AS n_expected,
        count(*) AS n_intervals,
        count(*) FILTER (WHERE NOT left_out) AS n_valid,
        count(*) FILTER (WHERE flagged) AS n_flagged,
        count(*) FILTER (WHERE NOT left_out AND inside) AS n_inside,
        min(value) FILTER (WHERE NOT left_out) AS lowest,
        max(value) FILTER (WHERE NOT left_out) AS highest,
        min(basis_rank) FILTER (WHERE NOT left_out) AS min_basis_rank,
        max(flag_policy) AS flag_policy
    FROM TUMBLE(
        (
            -- A limit in percent is one of the base: a comparison without a division is exact.
            SELECT
                v.meter_id,
                v.window_start AS at,
                v.window_end AS interval_end,
                v.quantity,
                v.phase,
                v.harmonic_order,
                v.flagged,
                v.left_out,
                v.flag_policy,
                v.basis_rank,
                TRY_CAST(100 * v.value / nullif(v.base, 0) - v.offset_pct AS DECIMAL(18, 6)) AS value,
                (l.limit_low IS NULL OR 100 * v.value >= v.base * (v.offset_pct + l.limit_low))
                    AND 100 * v.value <= v.base * (v.offset_pct + l.limit_high) AS inside,
                l.limit_id,
                l.limit_low,
                l.limit_high,
                l.unit,
                l.share_pct,
                l.min_coverage_pct,
                l.interval_s,
                l.standard,
                l.clause
            FROM (
                SELECT
                    meter_id, window_start, window_end, quantity, phase, harmonic_order, line_v, flagged, left_out, flag_policy, basis_rank,
                    base, value, 
                    -- Voltages are judged by how far they are off nominal.
                    CASE WHEN quantity IN ('u_phase', 'u_line') THEN CAST(100 AS DECIMAL(9, 4)) ELSE CAST(0 AS DECIMAL(9, 4)) END
                        AS offset_pct
                FROM pq_intervals
            ) v
            JOIN pq_limits l ON l.scheme = 'EN' AND l.quantity = v.quantity AND l.harmonic_order = v.harmonic_order
                AND v.line_v > l.line_v_above AND v.line_v <= l.line_v_upto
        ),
        at,
        INTERVAL '7 days',
        TIMESTAMP '1970-01-05T00:00:00Z'
    )
    GROUP BY meter_id, quantity, phase, harmonic_order, limit_id, window_start, window_end, limit_low, limit_high, unit, share_pct,
        min_coverage_pct, interval_s, standard, clause
) w
