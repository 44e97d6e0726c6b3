/*---
id          = "rd_spike"
kind        = "alert"
title       = "Highest 15-minute power of the day far above the third highest"
title_zh    = "日负荷尖峰异常"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "kW"
standard    = "internal"
owner       = "metering"
description = """
Takes the mean power of each 15-minute window of the local day and fires when the highest exceeds the third highest by
more than `spike_pct` of it. One or two intervals far above all others are more often a wrong value than a load, and
they would make the maximum demand of the month. A highest mean up to `min_kw` is no spike, as a kettle makes such a
day. Resolves on a day without a spike. A day with fewer than three windows that hold a power value says nothing.
`spike_at` is the window of the highest mean. Days are those of UTC+8 (they begin at 16:00 UTC): change the origin of
the window for another zone. Not seen: three wrong intervals or more, a spike below usual loads, and energy fed back.
"""
params      = { spike_pct = 150.0, min_kw = 5.0 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    highest_kw > $min_kw AND (highest_kw - third_kw) * 100 > third_kw * $spike_pct AS firing,
    highest_kw AS measured,
    CAST(greatest(third_kw * (1 + $spike_pct / 100), $min_kw) AS DECIMAL(18, 6)) AS limit_high,
    'kW' AS unit,
    third_kw,
    spike_at
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        max(mean_kw) FILTER (WHERE place = 1) AS highest_kw,
        max(mean_kw) FILTER (WHERE place = 3) AS third_kw,
        min(at) FILTER (WHERE place = 1) AS spike_at
    FROM (
        SELECT
            meter_id,
            window_start,
            window_end,
            at,
            mean_kw,
            row_number() OVER (PARTITION BY meter_id, window_start ORDER BY mean_kw DESC, at) AS place
        FROM TUMBLE((
            SELECT
                meter_id,
                window_start AS at,
                CAST(avg(TRY_CAST(p_kw AS DECIMAL(15, 6))) AS DECIMAL(18, 6)) AS mean_kw
            FROM TUMBLE(meter_readings, ts, INTERVAL '15 minutes')
            WHERE TRY_CAST(p_kw AS DECIMAL(15, 6)) >= 0
            GROUP BY meter_id, window_start, window_end
        ), at, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    ) p
    WHERE place <= 3
    GROUP BY meter_id, window_start, window_end
) d
WHERE third_kw IS NOT NULL
