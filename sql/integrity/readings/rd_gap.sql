/*---
id          = "rd_gap"
kind        = "alert"
title       = "Day of a meter with too few readings, or with a long gap"
title_zh    = "采集缺点(日完整率低或连续缺数)"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "%"
standard    = "internal"
owner       = "metering"
late        = "update"
description = """
Divides the local day into slots of the period of the meter (`interval_s` of `meter_installations` at the end of the day,
else the parameter) and counts those with at least one reading. Completeness is that over the slots of the day, in
percent.
Fires below `completeness_pct`, or when `gap_slots` slots or more in a row are empty; `missing_slots` and
`longest_gap_slots` say how many lack. Energy, demand and line loss of such a day cannot be trusted. Every meter of the
table `meters` is expected, so one that was silent all day fires with 0 %. Freezes and event records fill no slot.
Readings that are collected again days later correct the result and take the alert back. Days are those of UTC+8 (they
begin at 16:00 UTC): change the origin of the windows for another zone. A meter is judged on the days that lie whole
within one of its versions in `meters`.
Not seen: a day on which no meter at all reported, meters that are not in `meters`, single channels (see
rd_channels_missing).
"""
params      = { interval_s = 900, completeness_pct = 95.0, gap_slots = 4 }
---*/
WITH seconds AS (
    SELECT DISTINCT
        meter_id,
        window_start,
        window_end,
        CAST(extract(epoch FROM ts) - extract(epoch FROM window_start) AS BIGINT) AS second_of_day
    FROM TUMBLE(meter_readings, ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    WHERE coalesce(reading_kind, 'instant') IN ('instant', 'interval')
),
slots AS (
    SELECT DISTINCT
        s.meter_id,
        s.window_start,
        s.window_end,
        s.second_of_day / CASE WHEN i.interval_s BETWEEN 1 AND 86400 THEN i.interval_s ELSE $interval_s END AS slot
    FROM seconds s
    LEFT JOIN meter_installations i
        ON i.meter_id = s.meter_id
        AND (i.valid_from IS NULL OR i.valid_from < s.window_end)
        AND (i.valid_to IS NULL OR i.valid_to >= s.window_end)
),
gaps AS (
    SELECT
        meter_id,
        window_start,
        window_end,
        slot,
        slot - 1 - coalesce(lag(slot) OVER (PARTITION BY meter_id, window_start ORDER BY slot), -1) AS empty_before
    FROM slots
),
heard AS (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(*) AS slots,
        max(slot) AS last_slot,
        max(empty_before) AS longest_gap
    FROM gaps
    GROUP BY meter_id, window_start, window_end
),
days AS (
    SELECT DISTINCT window_start, window_end
    FROM TUMBLE(meter_readings, ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
),
expected AS (
    SELECT
        m.meter_id,
        d.window_start,
        d.window_end,
        86400 / CASE WHEN i.interval_s BETWEEN 1 AND 86400 THEN i.interval_s ELSE $interval_s END AS slots_per_day
    FROM days d
    CROSS JOIN meters m
    LEFT JOIN meter_installations i
        ON i.meter_id = m.meter_id
        AND (i.valid_from IS NULL OR i.valid_from < d.window_end)
        AND (i.valid_to IS NULL OR i.valid_to >= d.window_end)
    WHERE (m.valid_from IS NULL OR m.valid_from <= d.window_start)
        AND (m.valid_to IS NULL OR m.valid_to >= d.window_end)
)
SELECT
    meter_id,
    window_start,
    window_end,
    slots * 100 < $completeness_pct * slots_per_day OR longest_gap_slots >= $gap_slots AS firing,
    CAST(CAST(slots AS DECIMAL(18, 6)) * 100 / slots_per_day AS DECIMAL(12, 6)) AS measured,
    $completeness_pct AS limit_low,
    '%' AS unit,
    slots,
    slots_per_day - slots AS missing_slots,
    longest_gap_slots,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_date
FROM (
    SELECT
        e.meter_id,
        e.window_start,
        e.window_end,
        e.slots_per_day,
        coalesce(h.slots, 0) AS slots,
        CASE
            WHEN h.slots IS NULL THEN e.slots_per_day
            ELSE greatest(h.longest_gap, e.slots_per_day - 1 - h.last_slot)
        END AS longest_gap_slots
    FROM expected e
    LEFT JOIN heard h ON h.meter_id = e.meter_id AND h.window_start = e.window_start
) j
