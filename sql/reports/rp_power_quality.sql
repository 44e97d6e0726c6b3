/*---
id          = "rp_power_quality"
title       = "Which monitored points keep the standards of power quality, week by week and month by month?"
title_zh    = "监测点电能质量周报(EN 50160)与月报(国标)"
description = """
For power quality engineers. One row per monitored point, period, parameter, harmonic order and limit: the weeks of EN 50160
(pq_en50160_report) and the months of the national standards (pq_gb_month_report), newest first, what failed first. Phases are joined: the
verdict is that of the worst, `failed_phases` names those that fail. `worst` stands beside its limits; `inside_pct` is the lowest share
of a phase inside them (weeks only), `judged` and `failed` count intervals of the month that were judged and failed, or (weeks) the intervals.
A verdict `insufficient_data` says that too little came, not that all is well; a parameter of which nothing came has no row.
`coverage_pct` is the lowest of a phase, of weeks; of months the share of days that were judged.
Only periods of points with class A or other aggregated values are here: plain meters give instants, of which no verdict of a standard
comes. `basis` says which; only `class_a` is a statement about the standard. A point without any reading in a period has no row at all:
look for it in rp_coverage. Events have no limit in the standard and are `recorded`.
"""
owner       = "power-quality"
duckdb      = true
---*/
WITH weeks AS (
    SELECT
        'EN 50160' AS scheme,
        meter_id,
        window_start,
        window_end,
        parameter,
        harmonic_order,
        limit_id,
        CAST(max(CASE verdict WHEN 'fail' THEN 3 WHEN 'insufficient_data' THEN 2 WHEN 'pass' THEN 1 ELSE 0 END) AS BIGINT) AS badness,
        string_agg(phase, ' ' ORDER BY phase) FILTER (WHERE verdict = 'fail') AS failed_phases,
        min(CAST(worst AS DECIMAL(18, 6))) AS lowest,
        max(CAST(worst AS DECIMAL(18, 6))) AS highest,
        max(CAST(limit_low AS DECIMAL(18, 6))) AS limit_low,
        max(CAST(limit_high AS DECIMAL(18, 6))) AS limit_high,
        max(unit) AS unit,
        CAST(min(inside_share_pct) AS DECIMAL(9, 4)) AS inside_pct,
        CAST(max(required_share_pct) AS DECIMAL(9, 4)) AS required_pct,
        CAST(min(n_valid) AS BIGINT) AS judged,
        CAST(NULL AS BIGINT) AS failed,
        CAST(max(n_events) AS BIGINT) AS events,
        CAST(min(coverage_pct) AS DECIMAL(9, 2)) AS coverage_pct,
        min(basis) AS basis
    FROM pq_en50160_report
    GROUP BY meter_id, window_start, window_end, parameter, harmonic_order, limit_id
),
months AS (
    SELECT
        'GB' AS scheme,
        meter_id,
        window_start,
        window_end,
        parameter,
        harmonic_order,
        standard AS limit_id,
        CAST(CASE verdict WHEN 'fail' THEN 3 WHEN 'pass' THEN 1 ELSE 2 END AS BIGINT) AS badness,
        CAST(NULL AS VARCHAR) AS failed_phases,
        CAST(worst AS DECIMAL(18, 6)) AS lowest,
        CAST(worst AS DECIMAL(18, 6)) AS highest,
        CAST(limit_low AS DECIMAL(18, 6)) AS limit_low,
        CAST(limit_high AS DECIMAL(18, 6)) AS limit_high,
        unit,
        CAST(NULL AS DECIMAL(9, 4)) AS inside_pct,
        CAST(NULL AS DECIMAL(9, 4)) AS required_pct,
        CAST(n_judged AS BIGINT) AS judged,
        CAST(n_fail AS BIGINT) AS failed,
        CAST(NULL AS BIGINT) AS events,
        CAST(CAST(n_judged AS DECIMAL(18, 6)) * 100 / nullif(n_judged + n_without, 0) AS DECIMAL(9, 2)) AS coverage_pct,
        basis
    FROM pq_gb_month_report
),
periods AS (
    SELECT * FROM weeks
    UNION ALL
    SELECT * FROM months
),
monitored AS (
    SELECT DISTINCT scheme, meter_id, window_start FROM periods WHERE basis IN ('class_a', 'aggregated')
)
SELECT
    -- Weeks are those of UTC, months local ones.
    CASE p.scheme
        WHEN 'GB' THEN CAST(p.window_start AT TIME ZONE 'Asia/Shanghai' AS DATE) ELSE CAST(p.window_start AT TIME ZONE 'UTC' AS DATE)
    END AS period_from,
    CASE p.scheme
        WHEN 'GB' THEN CAST((p.window_end - INTERVAL '1 second') AT TIME ZONE 'Asia/Shanghai' AS DATE)
        ELSE CAST((p.window_end - INTERVAL '1 second') AT TIME ZONE 'UTC' AS DATE)
    END AS period_to,
    p.scheme,
    p.meter_id,
    t.org_id,
    t.feeder,
    p.parameter,
    p.harmonic_order,
    p.limit_id,
    CASE p.badness WHEN 3 THEN 'fail' WHEN 2 THEN 'insufficient_data' WHEN 1 THEN 'pass' ELSE 'recorded' END AS verdict,
    p.failed_phases,
    -- The value that lies farther out.
    CASE WHEN p.limit_low IS NOT NULL AND (p.limit_high IS NULL OR p.limit_low - p.lowest > p.highest - p.limit_high) THEN p.lowest ELSE p.highest END AS worst,
    p.limit_low,
    p.limit_high,
    p.unit,
    p.inside_pct,
    p.required_pct,
    p.judged,
    p.failed,
    p.events,
    p.coverage_pct,
    p.basis
FROM periods p
JOIN monitored m ON m.scheme = p.scheme AND m.meter_id = p.meter_id AND m.window_start = p.window_start
LEFT JOIN pq_points t ON t.meter_id = p.meter_id
    AND (t.valid_from IS NULL OR t.valid_from < p.window_end) AND (t.valid_to IS NULL OR p.window_end <= t.valid_to)
ORDER BY p.window_start DESC, p.scheme, p.meter_id, p.badness DESC, p.parameter, p.harmonic_order, p.limit_id
