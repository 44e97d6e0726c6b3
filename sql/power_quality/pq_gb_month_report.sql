/*---
id          = "pq_gb_month_report"
kind        = "table"
title       = "Monthly report of a point against the national standards"
title_zh    = "国标电能质量月报"
standard    = "GB/T 12325, 14549, 15543, 15945, 12326"
category    = "pq"
entity      = ["meter_id", "parameter", "harmonic_order"]
owner       = "power-quality"
description = """
The calendar month (Asia/Shanghai) of a point on one page: one row per parameter and order. Frequency, distortion, harmonics,
interharmonics and harmonic currents are counted in days and phases, as their daily rules judge them, flicker in blocks of two hours,
unbalance in the weeks that begin in the month: how many were judged (`n_judged`), passed and failed, how many had too little data or
could not be assessed (`n_without`), and the worst value of those judged beside its limit. Voltage is the rate of pq_voltage_month,
against its target. `verdict`: `fail` if any failed, else `pass` if at least `min_judged_pct` of all were judged, else
`insufficient_data`; `not_assessable` if none could be for want of a limit. What never came in the month has no row, nor has a point
without any reading. Limits, flags and coverage are those of the rules that are added up.
"""
params      = { min_judged_pct = 90.0 }
---*/
-- One flow of months and parts, to which each part is joined: windows over different intervals cannot be put together by UNION ALL.
WITH parts AS (
    SELECT meter_id, window_start, window_end, unnest(['days', 'flicker', 'unbalance', 'voltage']) AS part
    FROM (SELECT DISTINCT meter_id, window_start, window_end FROM TUMBLE(pq_readings, at, INTERVAL '1 month', 'Asia/Shanghai')) m
),
days AS (
    SELECT meter_id, window_start AS at, quantity, harmonic_order, verdict, p95_pct AS measured, limit_pct AS limit_high, '%' AS unit, basis,
        flag_policy, standard
    FROM pq_harmonic_days
    UNION ALL
    SELECT meter_id, window_start AS at, 'harmonic_i' AS quantity, harmonic_order, verdict, p95_a AS measured, limit_a AS limit_high, 'A' AS unit,
        basis, flag_policy, standard
    FROM pq_harmonic_current_days
    UNION ALL
    SELECT meter_id, window_start AS at, 'frequency' AS quantity, CAST(0 AS BIGINT) AS harmonic_order, verdict,
        CAST(
            greatest(highest_hz - (limit_low_hz + limit_high_hz) / 2, (limit_low_hz + limit_high_hz) / 2 - lowest_hz) AS DECIMAL(18, 6)
        ) AS measured,
        CAST((limit_high_hz - limit_low_hz) / 2 AS DECIMAL(18, 6)) AS limit_high, 'Hz' AS unit, basis, flag_policy, standard
    FROM pq_frequency_days
),
day_months AS (
    SELECT
        meter_id,
        quantity,
        harmonic_order,
        window_start,
        window_end,
        count(*) FILTER (WHERE verdict = 'pass') AS n_pass,
        count(*) FILTER (WHERE verdict = 'fail') AS n_fail,
        count(*) FILTER (WHERE verdict = 'insufficient_data') AS n_without_data,
        count(*) FILTER (WHERE verdict = 'not_assessable') AS n_not_assessable,
        max(measured) FILTER (WHERE verdict IN ('pass', 'fail')) AS worst,
        max(limit_high) AS limit_high,
        max(unit) AS unit,
        max(basis) AS basis,
        max(flag_policy) AS flag_policy,
        max(standard) AS standard
    FROM TUMBLE(days, at, INTERVAL '1 month', 'Asia/Shanghai')
    GROUP BY meter_id, quantity, harmonic_order, window_start, window_end
),
flicker_months AS (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(*) FILTER (WHERE judged AND value <= limit_high) AS n_pass,
        count(*) FILTER (WHERE judged AND value > limit_high) AS n_fail,
        count(*) FILTER (WHERE NOT judged) AS n_without_data,
        max(value) FILTER (WHERE judged) AS worst,
        max(limit_high) AS limit_high,
        CASE min(basis_rank) WHEN 3 THEN 'class_a' WHEN 2 THEN 'aggregated' ELSE 'instant' END AS basis,
        max(flag_policy) AS flag_policy,
        max(standard) AS standard
    FROM TUMBLE(
        (
            SELECT meter_id, window_start AS at, value, limit_high, NOT left_out AND value IS NOT NULL AS judged, basis_rank, flag_policy, standard
            FROM pq_plt_blocks
            WHERE scheme = 'GB'
        ),
        at,
        INTERVAL '1 month',
        'Asia/Shanghai'
    )
    GROUP BY meter_id, window_start, window_end
),
unbalance_months AS (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(*) FILTER (WHERE verdict = 'pass') AS n_pass,
        count(*) FILTER (WHERE verdict = 'fail') AS n_fail,
        count(*) FILTER (WHERE verdict = 'insufficient_data') AS n_without_data,
        max(p95_pct) FILTER (WHERE verdict <> 'insufficient_data') AS worst,
        max(limit_p95_pct) AS limit_high,
        max(basis) AS basis,
        max(flag_policy) AS flag_policy,
        max(standard) AS standard
    FROM TUMBLE(
        (SELECT meter_id, window_start AS at, verdict, p95_pct, limit_p95_pct, basis, flag_policy, standard FROM pq_unbalance_week),
        at,
        INTERVAL '1 month',
        'Asia/Shanghai'
    )
    GROUP BY meter_id, window_start, window_end
),
joined AS (
    SELECT
        p.meter_id,
        p.window_start,
        p.window_end,
        CASE p.part WHEN 'flicker' THEN 'plt' WHEN 'unbalance' THEN 'unbalance_u' WHEN 'voltage' THEN 'voltage_rate' ELSE d.quantity END AS parameter,
        coalesce(d.harmonic_order, 0) AS harmonic_order,
        coalesce(d.n_pass, f.n_pass, u.n_pass, CASE v.verdict WHEN 'pass' THEN 1 ELSE 0 END) AS n_pass,
        coalesce(d.n_fail, f.n_fail, u.n_fail, CASE v.verdict WHEN 'fail' THEN 1 ELSE 0 END) AS n_fail,
        coalesce(d.n_without_data, f.n_without_data, u.n_without_data, CASE v.verdict WHEN 'insufficient_data' THEN 1 ELSE 0 END) AS n_without_data,
        coalesce(d.n_not_assessable, 0) AS n_not_assessable,
        coalesce(d.worst, f.worst, u.worst, CAST(v.rate_pct AS DECIMAL(18, 6))) AS worst,
        CASE WHEN v.verdict IS NOT NULL THEN v.target_pct END AS limit_low,
        coalesce(d.limit_high, f.limit_high, u.limit_high) AS limit_high,
        CASE p.part WHEN 'days' THEN d.unit WHEN 'flicker' THEN '1' ELSE '%' END AS unit,
        coalesce(d.basis, f.basis, u.basis, v.basis) AS basis,
        coalesce(d.flag_policy, f.flag_policy, u.flag_policy, 'include') AS flag_policy,
        coalesce(d.standard, f.standard, u.standard, 'GB/T 12325-2008') AS standard,
        coalesce(d.basis, f.basis, u.basis, v.basis) IS NOT NULL AS has_part
    FROM parts p
    LEFT JOIN day_months d ON p.part = 'days' AND d.meter_id = p.meter_id AND d.window_start = p.window_start
    LEFT JOIN flicker_months f ON p.part = 'flicker' AND f.meter_id = p.meter_id AND f.window_start = p.window_start
    LEFT JOIN unbalance_months u ON p.part = 'unbalance' AND u.meter_id = p.meter_id AND u.window_start = p.window_start
    LEFT JOIN pq_voltage_month v ON p.part = 'voltage' AND v.meter_id = p.meter_id AND v.window_start = p.window_start
)
SELECT
    meter_id,
    parameter,
    harmonic_order,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_month,
    n_pass + n_fail AS n_judged,
    n_pass,
    n_fail,
    n_without_data + n_not_assessable AS n_without,
    worst,
    limit_low,
    limit_high,
    unit,
    CASE
        WHEN n_fail > 0 THEN 'fail'
        WHEN n_pass = 0 AND n_not_assessable > 0 THEN 'not_assessable'
        WHEN 100 * n_pass >= $min_judged_pct * (n_pass + n_without_data + n_not_assessable) THEN 'pass'
        ELSE 'insufficient_data'
    END AS verdict,
    basis,
    flag_policy,
    standard
FROM joined
WHERE has_part
