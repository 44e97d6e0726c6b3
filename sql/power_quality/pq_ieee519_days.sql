/*---
id          = "pq_ieee519_days"
kind        = "table"
title       = "Day of very short time distortion and harmonics against IEEE 519"
title_zh    = "IEEE 519 日评估(3秒值99%)"
standard    = "IEEE 519-2022"
clause      = "5.1, 5.2"
category    = "pq"
entity      = ["meter_id", "quantity", "phase", "harmonic_order"]
unit        = "%"
owner       = "power-quality"
description = """
One row per point, day (of UTC+8), quantity, phase and order of pq_ieee519_values: the value that 99 % of the day's values do not exceed
(nearest rank) against the limit of scheme `IEEE` times `voltage_factor` or `current_factor`. A value equal to it is inside. Current
limits follow the ratio of short-circuit to load current. The standard takes values of 3 s, 28800 a day: `n_valid` says how many there
were. Coverage is the share of the day's 144 intervals of ten minutes with a valid value; below `min_coverage_pct` of the limit the
verdict is `insufficient_data`. `not_assessable`: no limit for this voltage or order, or a current without `il_a` and `isc_a`.
Harmonic voltages are in percent of the fundamental, the standard's in percent of the rated voltage. Where more than a tenth of the
load is generation, other standards hold.
"""
params      = { voltage_factor = 1.5, current_factor = 2.0 }
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
    round(100 * CAST(w.slots AS DOUBLE) / 144, 6) AS coverage_pct,
    w.isc_il,
    w.p99_pct,
    w.highest_pct,
    CAST(l.limit_high * CASE WHEN w.of_current THEN $current_factor ELSE $voltage_factor END AS DECIMAL(15, 6)) AS limit_pct,
    CASE
        WHEN l.limit_id IS NULL THEN 'not_assessable'
        WHEN w.slots * 100 < l.min_coverage_pct * 144 OR w.n_valid = 0 THEN 'insufficient_data'
        WHEN w.p99_pct <= l.limit_high * CASE WHEN w.of_current THEN $current_factor ELSE $voltage_factor END THEN 'pass'
        ELSE 'fail'
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
        count(DISTINCT CASE WHEN NOT left_out AND value IS NOT NULL THEN date_bin(INTERVAL '10 minutes', at) END) AS slots,
        TRY_CAST(nearest_rank_percentile(CASE WHEN NOT left_out THEN CAST(value AS DOUBLE) END, 0.99) AS DECIMAL(18, 6)) AS p99_pct,
        max(value) FILTER (WHERE NOT left_out) AS highest_pct,
        min(basis_rank) FILTER (WHERE NOT left_out) AS min_basis_rank,
        max(flag_policy) AS flag_policy
    FROM TUMBLE(pq_ieee519_values, at, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    GROUP BY meter_id, quantity, phase, harmonic_order, line_v, of_current, isc_il, window_start, window_end
) w
LEFT JOIN pq_limits l ON l.scheme = 'IEEE' AND l.quantity = w.quantity AND l.harmonic_order = w.harmonic_order
    AND w.line_v > l.line_v_above AND w.line_v <= l.line_v_upto
    AND (l.given_from IS NULL OR (w.isc_il >= l.given_from AND w.isc_il < l.given_below))
