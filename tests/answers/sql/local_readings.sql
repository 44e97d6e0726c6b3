/*---
id          = "local_readings"
kind        = "view"
title       = "Readings of all sources, with the time as it was written"
owner       = "metering"
standard    = "internal"
description = """
The measured readings and those of the stress scenario, told apart by `source`. `local_ts` is the time in the zone in
which the meter wrote it, as text.
"""
---*/
WITH minutes AS (
    SELECT 'readings' AS source, * FROM readings
    UNION ALL
    SELECT 'readings_scenario' AS source, * FROM readings_scenario
)
SELECT
    *,
    to_char(ts + CAST(coalesce(tz_offset_min, 0) || ' minutes' AS INTERVAL), '%Y-%m-%dT%H:%M:%S')
        || CASE
            WHEN coalesce(tz_offset_min, 0) = 0 THEN 'Z'
            ELSE CASE WHEN tz_offset_min < 0 THEN '-' ELSE '+' END
                || lpad(CAST(abs(tz_offset_min) / 60 AS VARCHAR), 2, '0') || ':'
                || lpad(CAST(abs(tz_offset_min) % 60 AS VARCHAR), 2, '0')
        END AS local_ts
FROM minutes
