/*---
id          = "pq_harmonic_days"
kind        = "table"
title       = "Day of voltage distortion, harmonics and interharmonics against the limits of the voltage class"
title_zh    = "谐波电压日评估(国标95%概率大值)"
standard    = "GB/T 14549-1993"
clause      = "4, table 1"
category    = "pq"
entity      = ["meter_id", "quantity", "phase", "harmonic_order"]
unit        = "%"
owner       = "power-quality"
description = """
One row per point, local day (UTC+8, from 16:00 UTC), quantity (`thd_u`, `harmonic_u`, `interharmonic_u`), phase and order: the 95 %
value, which is the largest after the largest 5 % of the values are left out, against the limit of scheme `GB` for the voltage class of
the point. A value equal to the limit is inside. Interharmonics are those of GB/T 24337-2009, by the group of 50 Hz in which they lie.
The standard measures over 3 s; what a meter reports less often shows the trend (`basis`). Coverage is the share of the day's quarters
of an hour with a valid value; below `min_coverage_pct` of the limit the verdict is `insufficient_data`, else `pass` or `fail`. A voltage class
that the standard does not list has no row. Lists of harmonics carry no phase: whether it is the worst one depends on the meter.
"""
---*/
SELECT
    d.meter_id,
    d.quantity,
    d.phase,
    d.harmonic_order,
    l.limit_id,
    d.window_start,
    d.window_end,
    CAST(d.window_start + INTERVAL '8 hours' AS DATE) AS local_date,
    d.n_valid,
    d.n_flagged,
    round(100 * CAST(d.quarters AS DOUBLE) / 96, 6) AS coverage_pct,
    d.p95_pct,
    d.highest_pct,
    l.limit_high AS limit_pct,
    CASE
        WHEN d.quarters * 100 < l.min_coverage_pct * 96 OR d.n_valid = 0 THEN 'insufficient_data'
        WHEN d.p95_pct <= l.limit_high THEN 'pass'
        ELSE 'fail'
    END AS verdict,
    CASE d.min_basis_rank WHEN 3 THEN 'class_a' WHEN 2 THEN 'aggregated' ELSE 'instant' END AS basis,
    d.flag_policy,
    l.standard,
    l.clause
FROM (
    SELECT
        meter_id,
        quantity,
        phase,
        harmonic_order,
        line_v,
        window_start,
        window_end,
        count(*) FILTER (WHERE NOT left_out) AS n_valid,
        count(*) FILTER (WHERE flagged) AS n_flagged,
        count(DISTINCT CASE WHEN NOT left_out THEN date_bin(INTERVAL '15 minutes', at) END) AS quarters,
        TRY_CAST(gb_percentile_95(CASE WHEN NOT left_out THEN CAST(value AS DOUBLE) END) AS DECIMAL(18, 6)) AS p95_pct,
        max(value) FILTER (WHERE NOT left_out) AS highest_pct,
        min(basis_rank) FILTER (WHERE NOT left_out) AS min_basis_rank,
        max(flag_policy) AS flag_policy
    FROM TUMBLE(pq_samples, at, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    WHERE quantity IN ('thd_u', 'harmonic_u', 'interharmonic_u')
    GROUP BY meter_id, quantity, phase, harmonic_order, line_v, window_start, window_end
) d
JOIN pq_limits l ON l.scheme = 'GB' AND l.quantity = d.quantity AND l.harmonic_order = d.harmonic_order
    AND d.line_v > l.line_v_above AND d.line_v <= l.line_v_upto
