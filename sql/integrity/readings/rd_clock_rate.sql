/*---
id          = "rd_clock_rate"
kind        = "alert"
title       = "Clock of the meter runs too fast or too slow"
title_zh    = "电能表时钟日漂移"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "s/d"
standard    = "IEC 62054-21:2004"
clause      = "timekeeping accuracy of crystal-controlled clocks, 0.5 s a day at reference conditions"
owner       = "metering"
description = """
Takes the median offset of the clock of each local day (see rd_clock_offsets), what it gained a day since the last day
with an offset, and of these gains the median of 7 days. Fires when that is beyond `limit_s_per_day` either way: the
crystal has aged or its battery is weak, and the clock will leave its tolerance (see rd_clock_drift). A gain equal to
the limit is inside. The median passes over the one day on which the clock was set. It takes `min_gains` gains in the 7
days; days are those of UTC+8. Cold or heat moves crystals by more than the limit for a while: raise it outdoors.
Not seen: a clock that is set every day, and offsets read too seldom.
"""
params      = { limit_s_per_day = 0.5, min_gains = 4, earliest_year = 2010 }
---*/
WITH days AS (
    SELECT
        meter_id,
        window_start,
        window_end,
        CAST(median(offset_s) AS DECIMAL(18, 6)) AS offset_s
    FROM TUMBLE((
        SELECT meter_id, ts, offset_s FROM rd_clock_offsets WHERE extract(year FROM meter_clock_ts) >= $earliest_year
    ), ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    GROUP BY meter_id, window_start, window_end
),
gains AS (
    SELECT
        meter_id,
        window_start AS day,
        offset_s,
        (offset_s - lag(offset_s) OVER (PARTITION BY meter_id ORDER BY window_start)) * 86400
            / CAST(
                extract(epoch FROM window_start)
                    - extract(epoch FROM lag(window_start) OVER (PARTITION BY meter_id ORDER BY window_start))
                AS DECIMAL(12, 0)
            ) AS s_per_day
    FROM days
)
SELECT
    meter_id,
    window_start,
    window_end,
    abs(rate) > $limit_s_per_day AS firing,
    rate AS measured,
    -1 * $limit_s_per_day AS limit_low,
    $limit_s_per_day AS limit_high,
    's/d' AS unit,
    gains,
    offset_s
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(s_per_day) AS gains,
        CAST(median(s_per_day) AS DECIMAL(18, 6)) AS rate,
        last_value(offset_s ORDER BY day) AS offset_s
    FROM HOP(gains, day, INTERVAL '1 day', INTERVAL '7 days', TIMESTAMP '1970-01-01T16:00:00Z')
    GROUP BY meter_id, window_start, window_end
) w
WHERE gains >= $min_gains
