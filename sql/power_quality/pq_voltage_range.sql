/*---
id          = "pq_voltage_range"
kind        = "alert"
title       = "Voltage of 35 kV or more ranges over more than 10 % of nominal within a day"
title_zh    = "35kV及以上电压偏差绝对值之和超限"
severity    = "warning"
entity      = "meter_id"
standard    = "GB/T 12325-2008"
clause      = "4.1"
category    = "pq"
unit        = "%"
owner       = "power-quality"
description = """
From 35 kV on the standard limits no single value but the sum of the magnitudes of the highest and the lowest deviation: 10 % of
nominal. If both are of one sign, the larger magnitude counts. Judged for each local day (UTC+8) from the line voltages over ten
minutes, worst lines together. A value equal to the limit is inside. Coverage is the share of the day's 144 intervals with a valid
value; below `min_coverage_pct` of the limit the day says nothing (`firing` is null). Intervals below `dead_pct` of nominal are outage.
"""
params      = { dead_pct = 50.0 }
---*/
SELECT
    d.meter_id,
    d.window_start,
    d.window_end,
    CASE WHEN d.slots * 100 >= l.min_coverage_pct * 144 THEN
        CASE
            WHEN d.highest_v >= d.line_v AND d.lowest_v <= d.line_v THEN 100 * (d.highest_v - d.lowest_v) > d.line_v * l.limit_high
            ELSE 100 * greatest(abs(d.highest_v - d.line_v), abs(d.lowest_v - d.line_v)) > d.line_v * l.limit_high
        END
    END AS firing,
    TRY_CAST(
        100 * CASE
            WHEN d.highest_v >= d.line_v AND d.lowest_v <= d.line_v THEN d.highest_v - d.lowest_v
            ELSE greatest(abs(d.highest_v - d.line_v), abs(d.lowest_v - d.line_v))
        END / nullif(d.line_v, 0) AS DECIMAL(18, 6)
    ) AS measured,
    l.limit_high,
    l.unit,
    TRY_CAST(100 * (d.highest_v - d.line_v) / nullif(d.line_v, 0) AS DECIMAL(18, 6)) AS highest_deviation_pct,
    TRY_CAST(100 * (d.lowest_v - d.line_v) / nullif(d.line_v, 0) AS DECIMAL(18, 6)) AS lowest_deviation_pct,
    d.highest_v,
    d.lowest_v,
    d.line_v AS nominal_v,
    d.n_flagged,
    round(100 * CAST(d.slots AS DOUBLE) / 144, 6) AS coverage_pct,
    CASE d.min_basis_rank WHEN 3 THEN 'class_a' WHEN 2 THEN 'aggregated' ELSE 'instant' END AS basis,
    d.flag_policy,
    l.standard,
    l.clause
FROM (
    SELECT
        meter_id,
        line_v,
        window_start,
        window_end,
        count(DISTINCT CASE WHEN NOT left_out THEN at END) AS slots,
        count(DISTINCT CASE WHEN flagged THEN at END) AS n_flagged,
        max(value) FILTER (WHERE NOT left_out) AS highest_v,
        min(value) FILTER (WHERE NOT left_out) AS lowest_v,
        min(basis_rank) FILTER (WHERE NOT left_out) AS min_basis_rank,
        max(flag_policy) AS flag_policy
    FROM TUMBLE(
        (
            SELECT meter_id, window_start AS at, line_v, flagged, left_out, flag_policy, basis_rank, value
            FROM pq_intervals
            WHERE quantity = 'u_line' AND 100 * value >= $dead_pct * base
        ),
        at,
        INTERVAL '1 day',
        TIMESTAMP '1970-01-01T16:00:00Z'
    )
    GROUP BY meter_id, line_v, window_start, window_end
) d
JOIN pq_limits l ON l.scheme = 'GB' AND l.quantity = 'u_range' AND d.line_v > l.line_v_above AND d.line_v <= l.line_v_upto
