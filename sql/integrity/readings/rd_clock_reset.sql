/*---
id          = "rd_clock_reset"
kind        = "alert"
title       = "Clock of the meter was reset"
title_zh    = "电能表时钟复位"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "year"
standard    = "internal"
owner       = "metering"
description = """
Fires when the clock of the meter shows a year before `earliest_year`: after an outage with an empty battery clocks
begin anew, most at 1970-01-01 or 2000-01-01. Time-of-use registers and load profiles are wrong until it is set.
`measured` is the year that it shows, in UTC. Resolves with a reading whose clock shows `earliest_year` or later.
Readings without the clock of the meter are passed over.
Not seen: a meter whose readings are stamped (`ts`) by that clock too, as they come decades late and take part in no
rule; and a reset to a date that is possible (see rd_clock_drift).
"""
params      = { earliest_year = 2010 }
---*/
SELECT
    meter_id,
    ts,
    extract(year FROM meter_clock_ts) < $earliest_year AS firing,
    extract(year FROM meter_clock_ts) AS measured,
    $earliest_year AS limit_low,
    'year' AS unit,
    meter_clock_ts
FROM meter_readings
WHERE meter_clock_ts IS NOT NULL
