/*---
id          = "pq_light_load_month"
kind        = "table"
title       = "Load of transformers in a month, and which are lightly loaded"
title_zh    = "变压器月负载率与轻载"
standard    = "internal"
category    = "load"
entity      = "meter_id"
unit        = "%"
owner       = "distribution"
description = """
Mean and highest load of each transformer in a calendar month (Asia/Shanghai), from pq_load_windows, with the hours above 80 and 100 %.
`light` says that the mean is below `light_pct`: a transformer that is too large loses energy in its iron all year. A mean equal to the
limit is not light. Coverage is the share of the month's quarters of an hour with a value; below `min_coverage_pct` the verdict is
`insufficient_data`, else `light`, `normal` or `heavy` (some window above `heavy_pct`). Windows are not weighted: each counts alike.
"""
params      = { light_pct = 20.0, heavy_pct = 80.0, overload_pct = 100.0, min_coverage_pct = 90.0 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    mean_load_pct,
    highest_load_pct,
    CAST(heavy_windows AS DOUBLE) / 4 AS heavy_h,
    CAST(overload_windows AS DOUBLE) / 4 AS overload_h,
    windows,
    round(100 * CAST(windows AS DOUBLE) / quarters, 6) AS coverage_pct,
    CASE
        WHEN windows * 100 < $min_coverage_pct * quarters THEN 'insufficient_data'
        WHEN heavy_windows > 0 THEN 'heavy'
        WHEN mean_load_pct < $light_pct THEN 'light'
        ELSE 'normal'
    END AS verdict,
    basis
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        CAST(avg(load_pct) AS DECIMAL(18, 6)) AS mean_load_pct,
        max(load_pct) AS highest_load_pct,
        count(*) FILTER (WHERE load_pct > $heavy_pct) AS heavy_windows,
        count(*) FILTER (WHERE load_pct > $overload_pct) AS overload_windows,
        count(*) AS windows,
        min(basis) AS basis,
        CAST((extract(epoch FROM window_end) - extract(epoch FROM window_start)) / 900 AS BIGINT) AS quarters
    FROM TUMBLE(
        (SELECT meter_id, window_start AS at, load_pct, basis FROM pq_load_windows WHERE load_pct IS NOT NULL),
        at,
        INTERVAL '1 month',
        'Asia/Shanghai'
    )
    GROUP BY meter_id, window_start, window_end
) m
