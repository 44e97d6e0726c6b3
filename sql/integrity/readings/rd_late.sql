/*---
id          = "rd_late"
kind        = "alert"
title       = "Readings of a meter were published more than a day late"
title_zh    = "数据迟到与补采"
severity    = "info"
entity      = "meter_id"
category    = "integrity"
unit        = "readings"
standard    = "internal"
owner       = "metering"
late        = "update"
description = """
Lateness is the time from the instant of a reading to that at which the head end published it (`ingest_ts`, else
`collected_ts`). Fires for a local day with at least one reading that was later than `late_s`: it was collected again
after the day had been billed and reported, so results of that day have changed. `warning` if one was later than
`recollection_s`, the longest time for which meters keep their profile. `measured` is the number of late readings,
`latest_s` the greatest lateness, `out_of_order` the number of readings of the day that had been published before one of
up to 24 hours earlier was. A day without late readings resolves it.
Rules tolerate the `delay` of their stream; what comes later corrects those with `late = "update"`, this one among them.
Days are those of UTC+8. Not seen: lateness behind the head end, and readings without `ingest_ts` and `collected_ts`.
"""
params      = { late_s = 86400, recollection_s = 604800 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    late > 0 AS firing,
    CASE WHEN latest_s > $recollection_s THEN 'warning' ELSE 'info' END AS severity,
    late AS measured,
    0 AS limit_high,
    'readings' AS unit,
    readings,
    latest_s,
    out_of_order,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_date
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(*) AS readings,
        count(*) FILTER (WHERE lateness_s > $late_s) AS late,
        max(lateness_s) AS latest_s,
        count(*) FILTER (WHERE published_ts < latest_before) AS out_of_order
    FROM TUMBLE((
        SELECT
            meter_id,
            ts,
            published_ts,
            TRY_CAST(extract(epoch FROM published_ts) - extract(epoch FROM ts) AS DECIMAL(15, 3)) AS lateness_s,
            max(published_ts) OVER (PARTITION BY meter_id ORDER BY ts RANGE INTERVAL '24 hours' PRECEDING) AS latest_before
        FROM (SELECT meter_id, ts, coalesce(ingest_ts, collected_ts) AS published_ts FROM meter_readings) p
        WHERE published_ts IS NOT NULL
    ), ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    GROUP BY meter_id, window_start, window_end
) d
