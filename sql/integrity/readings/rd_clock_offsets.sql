/*---
id          = "rd_clock_offsets"
kind        = "view"
title       = "Offset of the clock of a meter to the head end"
title_zh    = "电能表时钟偏差"
category    = "integrity"
entity      = "meter_id"
unit        = "s"
standard    = "internal"
owner       = "metering"
description = """
Clock of the meter less the time at which the head end asked for it plus half of the round trip (0 where it is not known):
above zero the meter is ahead. Readings without both times have no row.
"""
---*/
SELECT meter_id, ts, meter_clock_ts, collected_ts, round_trip_ms, offset_s
FROM (
    SELECT
        meter_id,
        ts,
        meter_clock_ts,
        collected_ts,
        round_trip_ms,
        TRY_CAST(extract(epoch FROM meter_clock_ts) - extract(epoch FROM collected_ts) AS DECIMAL(15, 3))
            - coalesce(TRY_CAST(round_trip_ms AS DECIMAL(15, 3)), 0) / 2000 AS offset_s
    FROM meter_readings
) r
WHERE offset_s IS NOT NULL
