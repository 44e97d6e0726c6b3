/*---
id          = "sec_mass_meter_commands"
kind        = "alert"
title       = "Many meters switched or programmed within ten minutes"
title_zh    = "短时间内大量电能表被拉合闸或编程"
severity    = "critical"
entity      = "event_code"
category    = "security"
unit        = "meters"
standard    = "internal"
owner       = "security"
description = """
Counts the meters that recorded the same commanded event (a code that matches `codes`) within 10 minutes, a window every
5, and fires above `max_meters`. Whoever holds the command channel can put out the light of a district: stop the channel
first and ask later. Planned roll-outs look alike; silence the alert of that code while one runs. `operators` is the
number of people named. Resolves in the next window with such an event that is within the limit. Not seen: a slow attack,
and meters that lost their supply before they could report.
"""
[params]
codes      = "^(relay_open|relay_close|programming|clock_set|firmware_update|key_update)$"
max_meters = 50
---*/
SELECT
    event_code,
    window_start,
    window_end,
    meters > $max_meters AS firing,
    meters AS measured,
    $max_meters AS limit_high,
    'meters' AS unit,
    operators,
    sources,
    first_ts,
    last_ts
FROM (
    SELECT
        event_code,
        window_start,
        window_end,
        count(DISTINCT meter_id) AS meters,
        count(DISTINCT operator_id) AS operators,
        count(DISTINCT source) AS sources,
        min(start_ts) AS first_ts,
        max(start_ts) AS last_ts
    FROM HOP((
        SELECT meter_id, start_ts, lower(trim(event_code)) AS event_code, operator_id, source
        FROM meter_events
        WHERE regexp_like(lower(trim(event_code)), $codes)
    ), start_ts, INTERVAL '5 minutes', INTERVAL '10 minutes')
    GROUP BY event_code, window_start, window_end
) e
