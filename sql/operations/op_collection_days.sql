/*---
id          = "op_collection_days"
kind        = "table"
title       = "Collection of each feeder and local day: heard, complete, in time"
title_zh    = "各馈线每日采集成功率、完整率与及时率"
category    = "operations"
entity      = "feeder"
unit        = "%"
standard    = "internal"
owner       = "operations"
key         = "feeder"
description = """
One row per feeder and local day (UTC+8) with at least one reading of any meter. `heard_pct` is the share of the registered
meters of which at least one reading came; `complete_pct` the share of the 15-minute slots of all of them (`slots_per_day`
each) that hold one; `in_time_pct` the share of the readings with `collected_ts` that were collected within `in_time`
after their time, NULL where none says so. Freezes and event records do not fill a slot. Meters are those registered
throughout the day, heard or not. Whether a meter is broken or only not collected it cannot say.
"""
[params]
slots_per_day = 96
in_time       = "1 hour"
---*/
WITH heard AS (
    SELECT
        meter_id,
        window_start,
        count(DISTINCT date_bin(INTERVAL '15 minutes', ts)) AS slots,
        count(collected_ts) AS with_time,
        count(*) FILTER (WHERE collected_ts - ts <= INTERVAL $in_time) AS in_time
    FROM TUMBLE(meter_readings, ts, INTERVAL '1 day', 'Asia/Shanghai')
    WHERE coalesce(reading_kind, 'instant') IN ('instant', 'interval')
    GROUP BY meter_id, window_start, window_end
),
days AS (
    SELECT DISTINCT window_start, window_end
    FROM TUMBLE(meter_readings, ts, INTERVAL '1 day', 'Asia/Shanghai')
),
expected AS (
    SELECT m.meter_id, m.feeder, d.window_start, d.window_end
    FROM days d
    CROSS JOIN meters m
    WHERE m.feeder <> ''
        AND (m.valid_from IS NULL OR m.valid_from <= d.window_start)
        AND (m.valid_to IS NULL OR m.valid_to >= d.window_end)
)
SELECT
    feeder,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_date,
    meters,
    meters_heard,
    CAST(CAST(meters_heard AS DECIMAL(18, 6)) * 100 / meters AS DECIMAL(9, 4)) AS heard_pct,
    slots,
    meters * $slots_per_day AS slots_expected,
    CAST(CAST(slots AS DECIMAL(18, 6)) * 100 / (meters * $slots_per_day) AS DECIMAL(12, 4)) AS complete_pct,
    with_time,
    in_time,
    CAST(CAST(in_time AS DECIMAL(18, 6)) * 100 / nullif(with_time, 0) AS DECIMAL(9, 4)) AS in_time_pct
FROM (
    SELECT
        e.feeder,
        e.window_start,
        e.window_end,
        count(*) AS meters,
        count(h.meter_id) AS meters_heard,
        coalesce(sum(h.slots), 0) AS slots,
        coalesce(sum(h.with_time), 0) AS with_time,
        coalesce(sum(h.in_time), 0) AS in_time
    FROM expected e
    LEFT JOIN heard h ON h.meter_id = e.meter_id AND h.window_start = e.window_start
    GROUP BY e.feeder, e.window_start, e.window_end
) f
