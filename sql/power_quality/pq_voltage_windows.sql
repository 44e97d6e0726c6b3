/*---
id          = "pq_voltage_windows"
kind        = "table"
title       = "Mean voltage of each phase in 10-minute windows, against the limits of its nominal voltage"
standard    = "GB/T 12325-2008"
clause      = "4"
category    = "pq"
entity      = "meter_id"
owner       = "power-quality"
description = """
One row per meter and 10-minute UTC window that holds at least one voltage. `mean_*_v` is the arithmetic mean of the
reported values, rounded to 6 decimals: meters report means, not the 200 ms values that a class A instrument joins by
the root of their mean squares, so the verdict is indicative. A value equal to a limit is inside.
Limits follow the nominal voltage of the meter as it stands at the end of the window.
"""
params      = { upper_pct = 7.0, lower_pct = -10.0 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    nominal_v,
    limit_low_v,
    limit_high_v,
    samples_a,
    samples_b,
    samples_c,
    mean_a_v,
    mean_b_v,
    mean_c_v,
    mean_a_v > limit_high_v AS over_a,
    mean_b_v > limit_high_v AS over_b,
    mean_c_v > limit_high_v AS over_c,
    mean_a_v < limit_low_v AS under_a,
    mean_b_v < limit_low_v AS under_b,
    mean_c_v < limit_low_v AS under_c
FROM (
    SELECT
        w.meter_id,
        w.window_start,
        w.window_end,
        CAST(m.nominal_v AS DECIMAL(9, 3)) AS nominal_v,
        CAST(CAST(m.nominal_v AS DECIMAL(9, 3)) * (1 + $lower_pct / 100) AS DECIMAL(12, 6)) AS limit_low_v,
        CAST(CAST(m.nominal_v AS DECIMAL(9, 3)) * (1 + $upper_pct / 100) AS DECIMAL(12, 6)) AS limit_high_v,
        w.samples_a,
        w.samples_b,
        w.samples_c,
        w.mean_a_v,
        w.mean_b_v,
        w.mean_c_v
    FROM (
        -- TRY_CAST turns a wild value into "no value" here; rd_out_of_range reports it.
        SELECT
            meter_id,
            window_start,
            window_end,
            count(TRY_CAST(u_a_v AS DECIMAL(12, 6))) AS samples_a,
            count(TRY_CAST(u_b_v AS DECIMAL(12, 6))) AS samples_b,
            count(TRY_CAST(u_c_v AS DECIMAL(12, 6))) AS samples_c,
            CAST(avg(TRY_CAST(u_a_v AS DECIMAL(12, 6))) AS DECIMAL(12, 6)) AS mean_a_v,
            CAST(avg(TRY_CAST(u_b_v AS DECIMAL(12, 6))) AS DECIMAL(12, 6)) AS mean_b_v,
            CAST(avg(TRY_CAST(u_c_v AS DECIMAL(12, 6))) AS DECIMAL(12, 6)) AS mean_c_v
        FROM TUMBLE(meter_readings, ts, INTERVAL '10 minutes')
        GROUP BY meter_id, window_start, window_end
    ) w
    JOIN meters m ON m.meter_id = w.meter_id
    WHERE w.samples_a + w.samples_b + w.samples_c > 0
) v
