/*---
id          = "pq_sag_swell_counters"
kind        = "alert"
title       = "A meter counted voltage sags or swells"
title_zh    = "电表电压暂降暂升计数"
severity    = "info"
entity      = "meter_id"
standard    = "IEC 61000-4-30:2015"
clause      = "5.4"
category    = "pq"
unit        = "1"
owner       = "power-quality"
description = """
Advance of the meter's counters of sags and swells in an hour. Fires when there were any, as warning from `warn_events`
on; the first hour without one resolves. Single events are unavoidable, many of them in an hour point to a loose contact,
a load that starts often or a fault that comes and goes.
The advance is that since the reading before, whenever that was, so an event during a gap shows in the hour in which the
gap ends. A counter that falls was reset or the meter changed: it then counts from 0. Readings without the counters say
nothing, and the first reading of a meter is only the start. Thresholds, depth and duration are the meter's own and are
not in the readings: devices that record events are judged by pq_voltage_event.
"""
params      = { warn_events = 5 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    sags + swells > 0 AS firing,
    CASE WHEN sags + swells >= $warn_events THEN 'warning' ELSE 'info' END AS severity,
    sags + swells AS measured,
    0 AS limit_high,
    '1' AS unit,
    sags,
    swells
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        sum(CASE WHEN sag_count >= sags_before THEN sag_count - sags_before ELSE sag_count END) AS sags,
        sum(CASE WHEN swell_count >= swells_before THEN swell_count - swells_before ELSE swell_count END) AS swells
    FROM TUMBLE(
        (
            SELECT
                meter_id,
                ts,
                sag_count,
                swell_count,
                lag(sag_count) OVER w AS sags_before,
                lag(swell_count) OVER w AS swells_before,
                lag(ts) OVER w AS before_ts
            FROM meter_readings
            WHERE sag_count IS NOT NULL AND swell_count IS NOT NULL
            WINDOW w AS (PARTITION BY meter_id ORDER BY ts)
        ),
        ts,
        INTERVAL '1 hour'
    )
    WHERE before_ts IS NOT NULL
    GROUP BY meter_id, window_start, window_end
) e
