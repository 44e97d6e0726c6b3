/*---
id          = "pq_load_rate"
kind        = "table"
title       = "Load rate and peak-valley difference of each meter and local day"
title_zh    = "日负荷率与峰谷差率"
standard    = "internal"
category    = "load"
entity      = "meter_id"
unit        = "%"
owner       = "distribution"
description = """
From the hourly means of active power: the load rate is the mean of the hours over the highest hour, the peak-valley
difference is the highest less the lowest hour over the highest. An even load uses lines and transformers better. Days are
those of UTC+8 (they begin at 16:00 UTC). With fewer than `min_hours` hours, or when no hour draws power, both are null:
`hours` says how many there were. An hour counts from one reading on; within it, gaps do not show. Power fed back is
negative, so that the difference may be above 100 %.
"""
params      = { min_hours = 22 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_date,
    hours,
    mean_kw,
    highest_kw,
    lowest_kw,
    CASE WHEN hours >= $min_hours AND highest_kw > 0 THEN
        round(100 * CAST(mean_kw AS DOUBLE) / nullif(CAST(highest_kw AS DOUBLE), 0), 6)
    END AS load_rate_pct,
    CASE WHEN hours >= $min_hours AND highest_kw > 0 THEN
        round(100 * CAST(highest_kw - lowest_kw AS DOUBLE) / nullif(CAST(highest_kw AS DOUBLE), 0), 6)
    END AS peak_valley_pct
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(*) AS hours,
        CAST(avg(hour_kw) AS DECIMAL(18, 6)) AS mean_kw,
        max(hour_kw) AS highest_kw,
        min(hour_kw) AS lowest_kw
    FROM TUMBLE(
        (
            SELECT
                meter_id,
                window_start AS at,
                CAST(avg(TRY_CAST(p_kw AS DECIMAL(15, 6))) AS DECIMAL(15, 6)) AS hour_kw
            FROM TUMBLE(meter_readings, ts, INTERVAL '1 hour')
            WHERE TRY_CAST(p_kw AS DECIMAL(15, 6)) IS NOT NULL
            GROUP BY meter_id, window_start, window_end
        ),
        at,
        INTERVAL '1 day',
        TIMESTAMP '1970-01-01T16:00:00Z'
    )
    GROUP BY meter_id, window_start, window_end
) d
