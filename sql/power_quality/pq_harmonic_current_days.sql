/*---
id          = "pq_harmonic_current_days"
kind        = "table"
title       = "Day of harmonic currents against what the point may inject"
title_zh    = "谐波电流日评估(短路容量换算及用户分摊)"
standard    = "GB/T 14549-1993"
clause      = "5, table 2, annex B and C"
category    = "pq"
entity      = ["meter_id", "harmonic_order"]
unit        = "A"
owner       = "power-quality"
description = """
One row per point, local day (UTC+8) and order 2 to 25 of the list `i_h`: the 95 % value (the largest after the largest 5 % are left
out) against the permitted current. The table of the standard holds for a base short-circuit capacity (`base_mva` of the limit): the
limit of all users together is its value times `sk_mva` over the base, with the smallest short-circuit capacity in normal operation at
the point of common coupling. Where `pq_points` has the agreed capacity of the user (`si_mva`) and the supply capacity of the point
(`st_mva`), the user's share of it is the ratio of the two to the power of 1 over the exponent of the order, and never above all of it.
Without `sk_mva` there is no limit, and none is assumed: the verdict is `not_assessable` and `reason` says why (`no_sk`, `no_share` if
one of the two capacities is missing, `no_class` if the standard does not list the voltage). Else `pass`, `fail` or, below
`min_coverage_pct` of the day's quarters of an hour, `insufficient_data`. A value equal to the limit is inside. The list carries no
phase: whether it is the worst one depends on the meter, and currents must be on the primary side. The current of a point also holds
what the network's own distortion drives into its filters: a breach says where to look, not who is guilty.
"""
---*/
SELECT
    meter_id,
    harmonic_order,
    limit_id,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_date,
    n_valid,
    n_flagged,
    round(100 * CAST(quarters AS DOUBLE) / 96, 6) AS coverage_pct,
    p95_a,
    highest_a,
    all_users_a,
    limit_a,
    sk_mva,
    si_mva,
    st_mva,
    CASE
        WHEN reason IS NOT NULL THEN 'not_assessable'
        WHEN quarters * 100 < min_coverage_pct * 96 OR n_valid = 0 THEN 'insufficient_data'
        WHEN p95_a <= limit_a THEN 'pass'
        ELSE 'fail'
    END AS verdict,
    reason,
    CASE min_basis_rank WHEN 3 THEN 'class_a' WHEN 2 THEN 'aggregated' ELSE 'instant' END AS basis,
    flag_policy,
    standard,
    clause
FROM (
    SELECT
        d.*,
        p.sk_mva,
        p.si_mva,
        p.st_mva,
        l.limit_id,
        l.min_coverage_pct,
        l.standard,
        l.clause,
        CASE
            WHEN l.limit_id IS NULL THEN 'no_class'
            WHEN p.sk_mva IS NULL OR p.sk_mva <= 0 THEN 'no_sk'
            WHEN (p.si_mva IS NULL) <> (p.st_mva IS NULL) OR p.si_mva <= 0 OR p.st_mva <= 0 THEN 'no_share'
        END AS reason,
        CASE WHEN p.sk_mva > 0 THEN
            CAST(l.limit_high * CAST(p.sk_mva AS DECIMAL(12, 4)) / l.base_mva AS DECIMAL(18, 6))
        END AS all_users_a,
        CASE WHEN p.sk_mva > 0 THEN
            TRY_CAST(
                CAST(l.limit_high AS DOUBLE) * CAST(p.sk_mva AS DOUBLE) / CAST(l.base_mva AS DOUBLE)
                    * CASE
                        WHEN p.si_mva IS NULL AND p.st_mva IS NULL THEN 1.0
                        WHEN p.si_mva >= p.st_mva THEN 1.0
                        WHEN p.si_mva > 0 THEN power(CAST(p.si_mva AS DOUBLE) / CAST(p.st_mva AS DOUBLE), 1.0 / CAST(l.exponent AS DOUBLE))
                    END AS DECIMAL(18, 6)
            )
        END AS limit_a
    FROM (
        SELECT
            meter_id,
            harmonic_order,
            line_v,
            window_start,
            window_end,
            count(*) FILTER (WHERE NOT left_out) AS n_valid,
            count(*) FILTER (WHERE flagged) AS n_flagged,
            count(DISTINCT CASE WHEN NOT left_out THEN date_bin(INTERVAL '15 minutes', at) END) AS quarters,
            TRY_CAST(gb_percentile_95(CASE WHEN NOT left_out THEN CAST(value AS DOUBLE) END) AS DECIMAL(18, 6)) AS p95_a,
            max(value) FILTER (WHERE NOT left_out) AS highest_a,
            min(basis_rank) FILTER (WHERE NOT left_out) AS min_basis_rank,
            max(flag_policy) AS flag_policy
        FROM TUMBLE(pq_samples, at, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
        WHERE quantity = 'harmonic_i' AND harmonic_order <= 25
        GROUP BY meter_id, harmonic_order, line_v, window_start, window_end
    ) d
    JOIN pq_points p ON p.meter_id = d.meter_id
    LEFT JOIN pq_limits l ON l.scheme = 'GB' AND l.quantity = 'harmonic_i' AND l.harmonic_order = d.harmonic_order
        AND d.line_v > l.line_v_above AND d.line_v <= l.line_v_upto
) v
