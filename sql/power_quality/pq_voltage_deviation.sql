/*---
id            = "pq_voltage_deviation"
kind          = "alert"
title         = "Supply voltage outside +7 / -10 % of nominal"
severity      = "warning"
entity        = "meter_id"
standard      = "GB/T 12325-2008"
clause        = "4"
category      = "pq"
unit          = "V"
owner         = "power-quality"
resolve_after = 1
description   = """
Fires when the 10-minute mean voltage of any phase lies outside the limits of pq_voltage_windows, which sets them for
220 V single-phase supply; 235.4 V on 220 V is exactly +7 % and does not fire. `measured` is the highest phase, or the
lowest one when only the lower limit is broken. Critical beyond +15 or -20 %. A window without any voltage changes
nothing: see rd_voltage_missing.
"""
params        = { critical_upper_pct = 15.0, critical_lower_pct = -20.0 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    highest_v > limit_high_v OR lowest_v < limit_low_v AS firing,
    CASE
        WHEN highest_v > nominal_v * (1 + $critical_upper_pct / 100) THEN 'critical'
        WHEN lowest_v < nominal_v * (1 + $critical_lower_pct / 100) THEN 'critical'
        ELSE 'warning'
    END AS severity,
    measured_v AS measured,
    limit_low_v AS limit_low,
    limit_high_v AS limit_high,
    'V' AS unit,
    nominal_v,
    CAST((measured_v - nominal_v) * 100 / nullif(nominal_v, 0) AS DECIMAL(18, 6)) AS deviation_pct,
    CASE measured_v WHEN mean_a_v THEN 'a' WHEN mean_b_v THEN 'b' ELSE 'c' END AS phase
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        nominal_v,
        limit_low_v,
        limit_high_v,
        mean_a_v,
        mean_b_v,
        greatest(mean_a_v, mean_b_v, mean_c_v) AS highest_v,
        least(mean_a_v, mean_b_v, mean_c_v) AS lowest_v,
        CASE
            WHEN greatest(mean_a_v, mean_b_v, mean_c_v) <= limit_high_v
                AND least(mean_a_v, mean_b_v, mean_c_v) < limit_low_v
                THEN least(mean_a_v, mean_b_v, mean_c_v)
            ELSE greatest(mean_a_v, mean_b_v, mean_c_v)
        END AS measured_v
    FROM pq_voltage_windows
) v
WHERE measured_v IS NOT NULL
