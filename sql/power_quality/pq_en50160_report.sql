/*---
id          = "pq_en50160_report"
kind        = "table"
title       = "EN 50160 weekly report"
title_zh    = "EN 50160 电能质量周报"
standard    = "EN 50160:2010"
clause      = "4, 5"
category    = "pq"
entity      = ["meter_id", "parameter", "phase", "harmonic_order", "limit_id"]
owner       = "power-quality"
description = """
The week of a point on one page: one row per parameter, phase, order and limit, from pq_en50160_week (voltage, unbalance, distortion,
harmonics), pq_flicker_week and pq_frequency_week, and one row per kind of event that was recorded (dips, swells, interruptions).
`worst` is the value farthest outside its limits, or nearest to them. Verdicts are `pass`, `fail`, `insufficient_data`, and `recorded`
for events, to whose number the standard sets no limit. `n_events` is that of events not within a minute of another. A parameter of
which nothing came in the week has no row: it is missing, not passed. A point without any reading in the week has no report, not even of
its events. Rapid voltage changes are in pq_rapid_changes_days.
"""
---*/
-- One flow of weeks and parts, to which each part is joined: windows over different intervals cannot be put together by UNION ALL.
WITH parts AS (
    SELECT meter_id, window_start, window_end, unnest(['values', 'flicker', 'frequency', 'events']) AS part
    FROM (
        SELECT DISTINCT meter_id, window_start, window_end
        FROM TUMBLE(pq_readings, at, INTERVAL '7 days', TIMESTAMP '1970-01-05T00:00:00Z')
    ) w
),
events AS (
    SELECT
        meter_id,
        kind,
        window_start,
        window_end,
        count(*) FILTER (WHERE counted) AS n_events,
        CAST(CASE kind WHEN 'swell' THEN max(residual_pct) ELSE min(residual_pct) END AS DECIMAL(18, 6)) AS worst
    FROM TUMBLE(pq_supply_events, start_ts, INTERVAL '7 days', TIMESTAMP '1970-01-05T00:00:00Z')
    GROUP BY meter_id, kind, window_start, window_end
)
SELECT
    p.meter_id,
    coalesce(v.quantity, f.quantity, q.quantity, e.kind) AS parameter,
    coalesce(v.phase, f.phase, q.phase, 'all') AS phase,
    coalesce(v.harmonic_order, f.harmonic_order, q.harmonic_order, 0) AS harmonic_order,
    coalesce(v.limit_id, f.limit_id, q.limit_id, 'recorded') AS limit_id,
    p.window_start,
    p.window_end,
    coalesce(v.n_valid, f.n_valid, q.n_valid) AS n_valid,
    coalesce(v.n_flagged, f.n_flagged, q.n_flagged) AS n_flagged,
    coalesce(v.n_missing, f.n_missing, q.n_missing) AS n_missing,
    coalesce(v.coverage_pct, f.coverage_pct, q.coverage_pct) AS coverage_pct,
    coalesce(v.inside_share_pct, f.inside_share_pct, q.inside_share_pct) AS inside_share_pct,
    coalesce(v.required_share_pct, f.required_share_pct, q.required_share_pct) AS required_share_pct,
    CASE p.part
        WHEN 'values' THEN CASE WHEN v.limit_low IS NOT NULL AND v.limit_low - v.lowest > v.highest - v.limit_high THEN v.lowest ELSE v.highest END
        WHEN 'flicker' THEN f.highest
        WHEN 'frequency' THEN CASE WHEN q.limit_low - q.lowest > q.highest - q.limit_high THEN q.lowest ELSE q.highest END
        ELSE e.worst
    END AS worst,
    coalesce(v.limit_low, q.limit_low) AS limit_low,
    coalesce(v.limit_high, f.limit_high, q.limit_high) AS limit_high,
    coalesce(v.unit, f.unit, q.unit, '%') AS unit,
    e.n_events,
    coalesce(v.verdict, f.verdict, q.verdict, 'recorded') AS verdict,
    coalesce(v.basis, f.basis, q.basis, 'event') AS basis,
    coalesce(v.flag_policy, f.flag_policy, q.flag_policy) AS flag_policy,
    coalesce(v.standard, f.standard, q.standard, 'EN 50160:2010') AS standard,
    coalesce(v.clause, f.clause, q.clause, '4.3, 5.3') AS clause
FROM parts p
LEFT JOIN pq_en50160_week v ON p.part = 'values' AND v.meter_id = p.meter_id AND v.window_start = p.window_start
LEFT JOIN (SELECT * FROM pq_flicker_week WHERE required_share_pct IS NOT NULL) f
    ON p.part = 'flicker' AND f.meter_id = p.meter_id AND f.window_start = p.window_start
LEFT JOIN pq_frequency_week q ON p.part = 'frequency' AND q.meter_id = p.meter_id AND q.window_start = p.window_start
LEFT JOIN events e ON p.part = 'events' AND e.meter_id = p.meter_id AND e.window_start = p.window_start
WHERE coalesce(v.limit_id, f.limit_id, q.limit_id, e.kind) IS NOT NULL
