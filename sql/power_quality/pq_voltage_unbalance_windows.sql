/*---
id          = "pq_voltage_unbalance_windows"
kind        = "table"
title       = "Voltage unbalance of three-phase points in 10-minute windows"
standard    = "GB/T 15543-2008"
clause      = "6"
category    = "pq"
entity      = "meter_id"
unit        = "%"
owner       = "power-quality"
description = """
Negative-sequence voltage over positive-sequence voltage, from the three phasors of each reading; the window's value is
the root of the mean of squares. The standard judges the 95 % value over at least a day: query this table for it.
`max_magnitude_deviation_pct` is the largest distance of a phase from the mean of the three. It needs no angles and is
NOT the standard's factor (it also contains the zero sequence): compare it only with itself.
"""
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    samples,
    round(sqrt(mean_square), 6) AS unbalance_rms_pct,
    round(highest_pct, 6) AS unbalance_max_pct,
    round(highest_deviation_pct, 6) AS max_magnitude_deviation_pct
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(unbalance_pct) AS samples,
        avg(unbalance_pct * unbalance_pct) AS mean_square,
        max(unbalance_pct) AS highest_pct,
        max(100 * greatest(abs(u_a_v - mean_v), abs(u_b_v - mean_v), abs(u_c_v - mean_v)) / mean_v)
            AS highest_deviation_pct
    FROM (
        SELECT
            meter_id,
            window_start,
            window_end,
            u_a_v,
            u_b_v,
            u_c_v,
            (u_a_v + u_b_v + u_c_v) / 3 AS mean_v,
            voltage_unbalance_pct(u_a_v, ua_deg, u_b_v, ub_deg, u_c_v, uc_deg) AS unbalance_pct
        FROM TUMBLE(meter_readings, ts, INTERVAL '10 minutes')
        WHERE u_a_v > 0 AND u_b_v > 0 AND u_c_v > 0
            AND ua_deg IS NOT NULL AND ub_deg IS NOT NULL AND uc_deg IS NOT NULL
    ) p
    GROUP BY meter_id, window_start, window_end
) w
