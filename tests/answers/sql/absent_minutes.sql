/*---
id          = "absent_minutes"
kind        = "table"
title       = "Gaps between two readings of a meter"
entity      = "meter_id"
owner       = "metering"
unit        = "min"
standard    = "internal"
description = "One row for each reading that came more than a minute after the one before it, with the minutes between them that have no reading."
---*/
SELECT meter_id, ts, before_ts, minutes
FROM (
    SELECT
        meter_id,
        ts,
        before_ts,
        CAST(extract(epoch FROM ts) - extract(epoch FROM before_ts) AS BIGINT) / 60 - 1 AS minutes
    FROM (
        SELECT meter_id, ts, lag(ts) OVER (PARTITION BY meter_id ORDER BY ts) AS before_ts
        FROM readings
    )
)
WHERE minutes > 0
