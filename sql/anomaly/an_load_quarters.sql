/*---
id          = "an_load_quarters"
kind        = "view"
title       = "Mean power of each meter in each quarter of an hour"
title_zh    = "每块表15分钟平均功率"
category    = "anomaly"
entity      = "meter_id"
unit        = "kW"
standard    = "internal"
owner       = "analytics"
description = """
One row per meter and 15-minute UTC window with at least one power value: `mean_kw`, exact, of `samples` values. Unlike
rd_demand_windows it takes what there is, as anomalies are looked for in incomplete data too.
"""
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CAST(avg(TRY_CAST(p_kw AS DECIMAL(15, 6))) AS DECIMAL(18, 6)) AS mean_kw,
    count(TRY_CAST(p_kw AS DECIMAL(15, 6))) AS samples
FROM TUMBLE(meter_readings, ts, INTERVAL '15 minutes')
WHERE TRY_CAST(p_kw AS DECIMAL(15, 6)) IS NOT NULL
GROUP BY meter_id, window_start, window_end
