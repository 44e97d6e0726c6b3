/*---
id          = "pq_current_unbalance"
kind        = "alert"
title       = "Phase currents of a three-phase point unbalanced"
severity    = "warning"
version     = "1.1"
entity      = "meter_id"
standard    = "Q/GDW 1519"
category    = "pq"
unit        = "%"
owner       = "power-quality"
description = """
Largest less smallest 15-minute mean current over the largest, in percent. At low load the ratio says little: a window
whose largest current is below `min_current_a` is not judged (`firing` is null), so an open alert stays overnight.
Choose the limit by the transformer: the usual values are 15 % for Yyn0 and 25 % for Dyn11, taken from practice and not
checked against the printed standard.
"""
params      = { limit_pct = 15.0, min_current_a = 5.0 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CASE WHEN highest_a >= $min_current_a THEN unbalance_pct > $limit_pct END AS firing,
    unbalance_pct AS measured,
    $limit_pct AS limit_high,
    '%' AS unit,
    CAST(mean_a_a AS DECIMAL(12, 6)) AS mean_a_a,
    CAST(mean_b_a AS DECIMAL(12, 6)) AS mean_b_a,
    CAST(mean_c_a AS DECIMAL(12, 6)) AS mean_c_a,
    samples
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        samples,
        mean_a_a,
        mean_b_a,
        mean_c_a,
        greatest(mean_a_a, mean_b_a, mean_c_a) AS highest_a,
        round(
            100 * CAST(greatest(mean_a_a, mean_b_a, mean_c_a) - least(mean_a_a, mean_b_a, mean_c_a) AS DOUBLE)
                / CAST(greatest(mean_a_a, mean_b_a, mean_c_a) AS DOUBLE),
            6
        ) AS unbalance_pct
    FROM (
        SELECT
            meter_id,
            window_start,
            window_end,
            count(*) AS samples,
            avg(TRY_CAST(i_a_a AS DECIMAL(12, 6))) AS mean_a_a,
            avg(TRY_CAST(i_b_a AS DECIMAL(12, 6))) AS mean_b_a,
            avg(TRY_CAST(i_c_a AS DECIMAL(12, 6))) AS mean_c_a
        FROM TUMBLE(meter_readings, ts, INTERVAL '15 minutes')
        WHERE i_a_a IS NOT NULL AND i_b_a IS NOT NULL AND i_c_a IS NOT NULL
        GROUP BY meter_id, window_start, window_end
    ) w
    WHERE mean_a_a > 0 OR mean_b_a > 0 OR mean_c_a > 0
) u
