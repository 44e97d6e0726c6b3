/*---
id          = "quarter_hours"
kind        = "table"
title       = "Power and currents of fifteen minutes"
entity      = "meter_id"
owner       = "metering"
standard    = "internal"
description = """
Energy, demand and load of all kinds are made of this: how many values of power there are, their sum (kW over minutes:
divided by 60 it is kWh) and mean, and the mean current of each phase. Sums and means are exact. Zones differ from UTC by
whole quarters of an hour, so local days are made of these windows.
"""
---*/
SELECT
    meter_id,
    coalesce(tz_offset_min, 0) AS tz_offset_min,
    window_start,
    window_end,
    count(p_kw) AS p_values,
    sum(TRY_CAST(p_kw AS DECIMAL(12, 6))) AS p_sum_kw,
    avg(TRY_CAST(p_kw AS DECIMAL(16, 10))) AS p_mean_kw,
    avg(TRY_CAST(i_a AS DECIMAL(16, 10))) AS i_a_mean_a,
    avg(TRY_CAST(i_b AS DECIMAL(16, 10))) AS i_b_mean_a,
    avg(TRY_CAST(i_c AS DECIMAL(16, 10))) AS i_c_mean_a
FROM TUMBLE(readings, ts, INTERVAL '15 minutes')
GROUP BY meter_id, coalesce(tz_offset_min, 0), window_start, window_end
