/*---
id          = "pq_frequency_values"
kind        = "view"
title       = "Frequency of registered points over 10 s, against EN 50160"
title_zh    = "10秒频率值"
standard    = "EN 50160:2010"
clause      = "4.2.1"
category    = "pq"
unit        = "Hz"
owner       = "power-quality"
description = """
Mean of the readings of non-overlapping 10 s (UTC), joined to the limits of scheme `EN` for points of an interconnected system
(`frequency`) or of an island (`frequency_island`, where `pq_points.grid` is `island`). Limits are in percent off `nominal_hz`; a
value equal to one is inside. Blank and zero values are a meter without supply and have no row.
"""
params      = { nominal_hz = 50.0 }
---*/
SELECT
    f.meter_id,
    f.quantity,
    f.window_start AS at,
    f.window_end AS interval_end,
    f.flagged,
    f.left_out,
    f.flag_policy,
    f.basis_rank,
    f.mean_hz,
    100 * f.mean_hz >= $nominal_hz * (100 + l.limit_low) AND 100 * f.mean_hz <= $nominal_hz * (100 + l.limit_high) AS inside,
    l.limit_id,
    CAST($nominal_hz * (100 + l.limit_low) / 100 AS DECIMAL(15, 6)) AS limit_low_hz,
    CAST($nominal_hz * (100 + l.limit_high) / 100 AS DECIMAL(15, 6)) AS limit_high_hz,
    l.share_pct,
    l.min_coverage_pct,
    l.interval_s,
    l.standard,
    l.clause
FROM (
    SELECT
        meter_id,
        CASE grid WHEN 'island' THEN 'frequency_island' ELSE 'frequency' END AS quantity,
        line_v,
        window_start,
        window_end,
        bool_or(flagged) AS flagged,
        bool_or(left_out) AS left_out,
        max(flag_policy) AS flag_policy,
        min(basis_rank) AS basis_rank,
        CAST(avg(freq_hz) AS DECIMAL(12, 6)) AS mean_hz
    FROM TUMBLE(pq_readings, at, INTERVAL '10 seconds')
    WHERE freq_hz > 0
    GROUP BY meter_id, grid, line_v, window_start, window_end
) f
JOIN pq_limits l ON l.scheme = 'EN' AND l.quantity = f.quantity AND f.line_v > l.line_v_above AND f.line_v <= l.line_v_upto
