/*---
id          = "voltage_windows"
kind        = "table"
title       = "Mean voltage of ten minutes against the limits of several nominal voltages"
entity      = ["source", "meter_id", "phase", "nominal_v"]
owner       = "power quality"
unit        = "V"
standard    = "GB/T 12325-2008"
clause      = "4.3"
description = """
One row for each phase, window and row of the table `nominal_voltages`: the mean of the voltages of ten minutes, rounded
to microvolts, is `over` or `under` if it is beyond a limit; equal to it is inside. `near_limit` marks windows so close
to a limit that rounding may decide them.
"""
[params]
upper_pct = 7.0
lower_pct = 10.0
near_v    = 0.000001
---*/
SELECT
    source,
    meter_id,
    phase,
    nominal_v,
    window_start,
    window_end,
    samples,
    mean_v,
    mean_v > limit_high AS over,
    mean_v < limit_low AS under,
    abs(mean_v - limit_high) <= $near_v OR abs(mean_v - limit_low) <= $near_v AS near_limit
FROM (
    SELECT
        w.*,
        n.nominal_v,
        n.nominal_v * (100 + $upper_pct) / 100 AS limit_high,
        n.nominal_v * (100 - $lower_pct) / 100 AS limit_low
    FROM (
        SELECT
            source,
            meter_id,
            phase,
            window_start,
            window_end,
            count(*) AS samples,
            CAST(avg(v) AS DECIMAL(12, 6)) AS mean_v
        FROM TUMBLE(phase_voltages, ts, INTERVAL '10 minutes')
        GROUP BY source, meter_id, phase, window_start, window_end
    ) w
    CROSS JOIN nominal_voltages n
)
