/*---
id          = "rd_clock_drift"
kind        = "alert"
title       = "Clock of the meter is off by more than 5 minutes"
title_zh    = "电能表时钟超差"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "s"
standard    = "internal"
owner       = "metering"
description = """
Clock of the meter less the time at which the head end asked for it plus half of the round trip (`round_trip_ms`, 0 where
it is not known), in seconds: above zero the meter is ahead. Fires beyond `limit_s` either way: intervals, demand and
time-of-use energy then lie in the wrong period. Critical for meters that `meter_installations` marks as `time_of_use`.
A clock before the year `earliest_year` was reset and says nothing here (see rd_clock_reset). Readings without both
times are passed over. Resolves with the first offset inside.
Not seen: a wrong clock of the head end, which makes all of its meters fire; without `round_trip_ms` meters look slow by
the time on the wire, so raise `limit_s` on slow networks. A clock that is still inside but runs away: see rd_clock_rate.
"""
params      = { limit_s = 300, earliest_year = 2010 }
---*/
SELECT
    r.meter_id,
    r.ts,
    abs(r.offset_s) > $limit_s AS firing,
    CASE WHEN i.time_of_use THEN 'critical' ELSE 'warning' END AS severity,
    r.offset_s AS measured,
    -1 * $limit_s AS limit_low,
    $limit_s AS limit_high,
    's' AS unit,
    r.meter_clock_ts,
    r.collected_ts,
    r.round_trip_ms
FROM rd_clock_offsets r
LEFT JOIN meter_installations i ON i.meter_id = r.meter_id
WHERE extract(year FROM r.meter_clock_ts) >= $earliest_year
