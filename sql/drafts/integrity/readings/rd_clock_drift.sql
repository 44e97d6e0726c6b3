/*---
id          = "rd_clock_drift"
kind        = "alert"
title       = "Clock of the meter is off by more than 5 minutes"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "s"
standard    = "internal"
owner       = "metering"
description = """
Clock of the meter less the time at which the head end collected the reading, in seconds: above zero the meter is ahead.
Fires beyond `limit_s` either way: intervals, demand and time-of-use energy then lie in the wrong period. The
time on the wire is not known and not taken out; it makes meters look slow, so raise `limit_s` on slow networks.
A clock before the year `earliest_year` was reset and says nothing here (see rd_clock_reset). Readings without both
times are passed over. Not seen: a wrong clock of the head end, which makes all of its meters fire.
"""
params      = { limit_s = 300, earliest_year = 2010 }
---*/
SELECT
    meter_id,
    ts,
    abs(offset_s) > $limit_s AS firing,
    offset_s AS measured,
    -1 * $limit_s AS limit_low,
    $limit_s AS limit_high,
    's' AS unit,
    meter_clock_ts,
    collected_ts
FROM (
    SELECT
        meter_id,
        ts,
        meter_clock_ts,
        collected_ts,
        TRY_CAST(extract(epoch FROM meter_clock_ts) - extract(epoch FROM collected_ts) AS DECIMAL(15, 3)) AS offset_s
    FROM meter_readings
    WHERE extract(year FROM meter_clock_ts) >= $earliest_year
) r
WHERE offset_s IS NOT NULL
