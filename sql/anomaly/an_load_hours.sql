/*---
id          = "an_load_hours"
kind        = "view"
title       = "Mean power of each meter in each hour"
title_zh    = "每块表每小时平均功率"
category    = "anomaly"
entity      = "meter_id"
unit        = "kW"
standard    = "internal"
owner       = "analytics"
description = """
One row per meter and UTC hour with at least one power value: `mean_kw`, exact, of `samples` values. In zones with a whole
number of hours from UTC, as China, the hour of the week is the same hour of local time all year.
"""
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CAST(avg(TRY_CAST(p_kw AS DECIMAL(15, 6))) AS DECIMAL(18, 6)) AS mean_kw,
    count(TRY_CAST(p_kw AS DECIMAL(15, 6))) AS samples
FROM TUMBLE(meter_readings, ts, INTERVAL '1 hour')
WHERE TRY_CAST(p_kw AS DECIMAL(15, 6)) IS NOT NULL
GROUP BY meter_id, window_start, window_end
