/*---
id          = "rd_gap"
kind        = "alert"
title       = "Day of a meter with too few 15-minute slots"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "%"
standard    = "internal"
owner       = "metering"
description = """
Completeness is the number of 15-minute slots of the local day with at least one reading, over `slots_per_day`, in
percent. Fires below `completeness_pct`; `missing_slots` is what lacks. Energy, demand and line loss of such a day
cannot be trusted. Every meter of the table `meters` is expected, so one that was silent all day fires with 0 %.
Freezes and event records do not fill a slot. Days are those of UTC+8 (they begin at 16:00 UTC): change the origin of
the windows for another zone. A meter is judged on the days that lie whole within one of its versions in `meters`.
Not seen: a day on which no meter at all reported, meters that are not in `meters`, and where in the day the gaps lie.
Readings later than the delay do not fill their slot: give the rule a `delay` where they are collected again later.
"""
params      = { slots_per_day = 96, completeness_pct = 95.0 }
---*/
WITH heard AS (
    SELECT
        meter_id,
        window_start,
        count(DISTINCT date_bin(INTERVAL '15 minutes', ts)) AS slots
    FROM TUMBLE(meter_readings, ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    WHERE coalesce(reading_kind, 'instant') IN ('instant', 'interval')
    GROUP BY meter_id, window_start, window_end
),
days AS (
    SELECT DISTINCT window_start, window_end
    FROM TUMBLE(meter_readings, ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
),
expected AS (
    SELECT m.meter_id, d.window_start AS day_start, 1 AS expected, 0 AS slots
    FROM days d
    CROSS JOIN meters m
    WHERE (m.valid_from IS NULL OR m.valid_from <= d.window_start)
        AND (m.valid_to IS NULL OR m.valid_to >= d.window_end)
    UNION ALL
    SELECT meter_id, window_start, 0, slots FROM heard
)
SELECT
    meter_id,
    window_start,
    window_end,
    slots * 100 < $completeness_pct * $slots_per_day AS firing,
    CAST(CAST(slots AS DECIMAL(12, 0)) * 100 / $slots_per_day AS DECIMAL(12, 3)) AS measured,
    $completeness_pct AS limit_low,
    '%' AS unit,
    slots,
    greatest($slots_per_day - slots, 0) AS missing_slots
FROM (
    SELECT meter_id, window_start, window_end, max(slots) AS slots, max(expected) AS expected
    FROM TUMBLE(expected, day_start, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    GROUP BY meter_id, window_start, window_end
) e
WHERE expected = 1
