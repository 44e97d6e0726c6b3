/*---
id          = "pq_ieee519_weeks"
kind        = "table"
title       = "Week of short time distortion and harmonics against IEEE 519"
title_zh    = "IEEE 519 周评估(10分钟值95%、99%)"
standard    = "IEEE 519-2022"
clause      = "5.1, 5.2"
category    = "pq"
entity      = ["meter_id", "quantity", "phase", "harmonic_order"]
unit        = "%"
owner       = "power-quality"
description = """
One row per point, week (from Monday 00:00 UTC), quantity, phase and order of pq_ieee519_values, joined to intervals of ten minutes by
the root of the mean of squares: the value that 95 % of them do not exceed (nearest rank) against the limit of scheme `IEEE`, and for
currents also the value of 99 % against `current_p99_factor` times the limit. A value equal to it is inside. Below `min_coverage_pct`
of the 1008 intervals the verdict is `insufficient_data`; `not_assessable` as in pq_ieee519_days. An interval with a flagged reading is
left out as pq_readings says.
"""
params      = { current_p99_factor = 1.5 }
---*/
SELECT
    w.meter_id,
    w.quantity,
    w.phase,
    w.harmonic_order,
    l.limit_id,
    w.window_start,
    w.window_end,
    w.n_valid,
    w.n_flagged,
    round(100 * CAST(w.slots AS DOUBLE) / 1008, 6) AS coverage_pct,
    w.isc_il,
    w.p95_pct,
    w.p99_pct,
    w.highest_pct,
    l.limit_high AS limit_pct,
    CASE WHEN w.of_current THEN CAST(l.limit_high * $current_p99_factor AS DECIMAL(15, 6)) END AS limit_p99_pct,
    CASE
        WHEN l.limit_id IS NULL THEN 'not_assessable'
        WHEN w.slots * 100 < l.min_coverage_pct * 1008 OR w.n_valid = 0 THEN 'insufficient_data'
        WHEN w.p95_pct > l.limit_high THEN 'fail'
        WHEN w.of_current AND w.p99_pct > l.limit_high * $current_p99_factor THEN 'fail'
        ELSE 'pass'
    END AS verdict,
    CASE w.min_basis_rank WHEN 3 THEN 'class_a' WHEN 2 THEN 'aggregated' ELSE 'instant' END AS basis,
    w.flag_policy,
    l.standard,
    l.clause
FROM (
    SELECT
        meter_id,
        quantity,
        phase,
        harmonic_order,
        line_v,
        of_current,
        isc_il,
        window_start,
        window_end,
        count(value) FILTER (WHERE NOT left_out) AS n_valid,
        count(value) FILTER (WHERE flagged) AS n_flagged,
        count(value) FILTER (WHERE NOT left_out) AS slots,
        TRY_CAST(nearest_rank_percentile(CASE WHEN NOT left_out THEN CAST(value AS DOUBLE) END, 0.95) AS DECIMAL(18, 6)) AS p95_pct,
        TRY_CAST(nearest_rank_percentile(CASE WHEN NOT left_out THEN CAST(value AS DOUBLE) END, 0.99) AS DECIMAL(18, 6)) AS p99_pct,
        max(value) FILTER (WHERE NOT left_out) AS highest_pct,
        min(basis_rank) FILTER (WHERE NOT left_out) AS min_basis_rank,
        max(flag_policy) AS flag_policy
    FROM TUMBLE(
        (
            SELECT
                meter_id,
                window_start AS at,
                quantity,
                phase,
                harmonic_order,
                line_v,
                of_current,
                isc_il,
                bool_or(flagged) AS flagged,
                bool_or(left_out) AS left_out,
                max(flag_policy) AS flag_policy,
                min(basis_rank) AS basis_rank,
                TRY_CAST(rms_mean(CAST(value AS DOUBLE)) AS DECIMAL(18, 6)) AS value
            FROM TUMBLE(pq_ieee519_values, at, INTERVAL '10 minutes')
            GROUP BY meter_id, window_start, window_end, quantity, phase, harmonic_order, line_v, of_current, isc_il
        ),
        at,
        INTERVAL '7 days',
        TIMESTAMP '1970-01-05T00:00:00Z'
    )
    GROUP BY meter_id, quantity, phase, harmonic_order, line_v, of_current, isc_il, window_start, window_end
) w
LEFT JOIN pq_limits l ON l.scheme = 'IEEE' AND l.quantity = w.quantity AND l.harmonic_order = w.harmonic_order
    AND w.line_v > l.line_v_above AND w.line_v <= l.line_v_upto
    AND (l.given_from IS NULL OR (w.isc_il >= l.given_from AND w.isc_il < l.given_below))
