/*---
id          = "op_ingest_delay"
kind        = "alert"
title       = "Readings of a head end reach the pipeline late"
title_zh    = "前置系统送数延迟"
severity    = "warning"
entity      = "source"
category    = "operations"
unit        = "s"
standard    = "internal"
owner       = "operations"
description = """
Takes, for the readings of a head end within 30 minutes of event time, the time from the reading to its publication
(`ingest_ts` less `ts`), and fires when the 95 % value (the smallest that 95 % of them do not exceed) is above `max_s`:
the head end or its queue lags behind. Needs `min_readings` readings with both times, else the verdict is
`insufficient_data` and the alert stays as it is. Readings that come later than the delay of the rule are not in it, so
give the rule a `delay` above `max_s`. A head end whose clock runs ahead has times below 0. Not seen: the time between
publication and here, which wattline's own lag metrics tell.
"""
[params]
max_s        = 900
min_readings = 20
---*/
SELECT
    source,
    window_start,
    window_end,
    CASE WHEN with_times >= $min_readings THEN p95_s > $max_s END AS firing,
    CASE WHEN with_times >= $min_readings THEN p95_s END AS measured,
    $max_s AS limit_high,
    's' AS unit,
    CASE
        WHEN with_times < $min_readings THEN 'insufficient_data' WHEN p95_s > $max_s THEN 'late' ELSE 'in_time'
    END AS verdict,
    with_times,
    readings,
    longest_s,
    meters
FROM (
    SELECT
        source,
        window_start,
        window_end,
        count(*) AS readings,
        count(delay_s) AS with_times,
        nearest_rank_percentile(delay_s, 0.95) AS p95_s,
        max(delay_s) AS longest_s,
        count(DISTINCT meter_id) AS meters
    FROM TUMBLE((
        SELECT
            coalesce(nullif(trim(source), ''), 'unknown') AS source,
            meter_id,
            ts,
            extract(epoch FROM ingest_ts) - extract(epoch FROM ts) AS delay_s
        FROM meter_readings
    ), ts, INTERVAL '30 minutes')
    GROUP BY source, window_start, window_end
) r
