/*---
id          = "rd_future_timestamp"
kind        = "alert"
title       = "Reading is stamped later than it was published"
title_zh    = "数据时标超前"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "s"
standard    = "internal"
owner       = "metering"
description = """
Fires when the instant of a reading lies more than `limit_s` seconds after the head end published it (`ingest_ts`): the
meter or the concentrator runs ahead, or a local time was read as UTC. Such readings fall into the wrong interval and day,
and push the event time of their stream ahead, which makes good readings late. `measured` is by how much it is ahead.
Resolves with the next reading of the meter that is not. Readings without `ingest_ts` are passed over.
Not seen: readings beyond the `future_bound` of the stream, which are refused and become rows of dead_letters, and a
wrong clock of the head end.
"""
params      = { limit_s = 300 }
---*/
SELECT
    meter_id,
    ts,
    ahead_s > $limit_s AS firing,
    ahead_s AS measured,
    $limit_s AS limit_high,
    's' AS unit,
    ingest_ts
FROM (
    SELECT
        meter_id,
        ts,
        ingest_ts,
        TRY_CAST(extract(epoch FROM ts) - extract(epoch FROM ingest_ts) AS DECIMAL(15, 3)) AS ahead_s
    FROM meter_readings
) r
WHERE ahead_s IS NOT NULL
