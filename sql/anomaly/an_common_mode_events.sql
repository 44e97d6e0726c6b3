/*---
id          = "an_common_mode_events"
kind        = "alert"
title       = "Many meters of a feeder tell the same within a minute"
title_zh    = "同馈线多表同时上报事件（共因）"
severity    = "critical"
entity      = ["feeder", "event_code"]
category    = "anomaly"
unit        = "meters"
standard    = "internal"
owner       = "analytics"
description = """
Gathers events of one code (those that match `codes`) of the meters of a feeder, as long as they follow each other within
`pause`, and tells one incident for each such chain with at least `min_meters` meters: one fault, not a hundred alerts of
meters. `share_pct` is their part of the meters that the feeder has. Told when the pause is over, with the first and last
time. Kept are the events of chains that go on. Not seen: meters without a feeder, and an incident whose meters cannot
report; for those see the rules of silence.
"""
[params]
codes      = "^(power_off|power_on|interruption|voltage_dip|voltage_swell|transient_overvoltage|clock_set)$"
pause      = "1 minute"
min_meters = 5
---*/
SELECT
    feeder,
    event_code,
    window_start,
    window_end,
    meters AS measured,
    first_ts,
    last_ts,
    first_meter_id,
    events,
    feeder_meters,
    CAST(CAST(meters AS DECIMAL(12, 6)) * 100 / nullif(feeder_meters, 0) AS DECIMAL(12, 4)) AS share_pct
FROM (
    SELECT
        i.feeder,
        i.event_code,
        i.window_start,
        i.window_end,
        i.meters,
        i.first_ts,
        i.last_ts,
        i.first_meter_id,
        i.events,
        count(DISTINCT m.meter_id) AS feeder_meters
    FROM (
        SELECT
            feeder,
            event_code,
            window_start,
            window_end,
            count(DISTINCT meter_id) AS meters,
            count(*) AS events,
            min(start_ts) AS first_ts,
            max(start_ts) AS last_ts,
            first_value(meter_id ORDER BY start_ts) AS first_meter_id
        FROM SESSION((
            SELECT e.meter_id, e.start_ts, lower(trim(e.event_code)) AS event_code, m.feeder
            FROM meter_events e
            JOIN meters m ON m.meter_id = e.meter_id
            WHERE m.feeder <> '' AND regexp_like(lower(trim(e.event_code)), $codes)
        ), start_ts, INTERVAL $pause, feeder, event_code)
        GROUP BY feeder, event_code, window_start, window_end
        HAVING count(DISTINCT meter_id) >= $min_meters
    ) i
    LEFT JOIN meters m ON m.feeder = i.feeder
    GROUP BY i.feeder, i.event_code, i.window_start, i.window_end, i.meters, i.first_ts, i.last_ts, i.first_meter_id, i.events
) f
