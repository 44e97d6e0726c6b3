/*---
id          = "pq_frequency"
kind        = "alert"
title       = "Frequency of the grid more than 0.2 Hz off nominal"
title_zh    = "电网频率偏差超限"
severity    = "warning"
entity      = "grid"
standard    = "GB/T 15945-2008"
clause      = "3.1"
category    = "pq"
unit        = "Hz"
owner       = "power-quality"
description = """
Fires while the frequency of a minute is more than `limit_hz` away from nominal, critical above `critical_hz`; a deviation equal to a
limit is inside. The standard allows 0.2 Hz in normal operation and up to 0.5 Hz for systems of small capacity. Frequency is the same
at all points of a synchronous grid, so this is one alert for each `grid` of `pq_points` and not one for each meter: each meter gives
the mean of its minute, and the value judged is the lower median of the meters. `meters_outside` counts those that are off by
themselves. A blank, zero or absurd value is a meter without supply or without the quantity and does not count. It cannot see a part
of a grid that has separated: its meters are outvoted (`meters_outside` is above 0). The standard measures over 1, 3 or 10 s; the mean
of a minute hides shorter excursions, so that the verdict is an indication unless `basis` is `class_a`.
"""
params      = { nominal_hz = 50.0, limit_hz = 0.2, critical_hz = 0.5 }
---*/
SELECT
    grid,
    window_start,
    window_end,
    abs(frequency_hz - $nominal_hz) > $limit_hz AS firing,
    CASE WHEN abs(frequency_hz - $nominal_hz) > $critical_hz THEN 'critical' ELSE 'warning' END AS severity,
    frequency_hz AS measured,
    $nominal_hz - $limit_hz AS limit_low,
    $nominal_hz + $limit_hz AS limit_high,
    'Hz' AS unit,
    frequency_hz - $nominal_hz AS deviation_hz,
    meters,
    meters_outside,
    flag_policy,
    CASE min_basis_rank WHEN 3 THEN 'class_a' WHEN 2 THEN 'aggregated' ELSE 'instant' END AS basis
FROM (
    SELECT
        grid,
        window_start,
        window_end,
        count(*) AS meters,
        count(*) FILTER (WHERE abs(mean_hz - $nominal_hz) > $limit_hz) AS meters_outside,
        min(basis_rank) AS min_basis_rank,
        max(flag_policy) AS flag_policy,
        -- A value of a meter, not the mean of two: exact.
        TRY_CAST(nearest_rank_percentile(CAST(mean_hz AS DOUBLE), 0.5) AS DECIMAL(12, 6)) AS frequency_hz
    FROM (
        SELECT
            meter_id,
            coalesce(grid, 'grid') AS grid,
            window_start,
            window_end,
            min(basis_rank) AS basis_rank,
            max(flag_policy) AS flag_policy,
            CAST(avg(freq_hz) AS DECIMAL(12, 6)) AS mean_hz
        FROM TUMBLE(pq_readings, at, INTERVAL '1 minute')
        WHERE freq_hz > 0 AND NOT left_out
        GROUP BY meter_id, coalesce(grid, 'grid'), window_start, window_end
    ) m
    GROUP BY grid, window_start, window_end
) a
