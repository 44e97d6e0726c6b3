/*---
id          = "pq_outages"
kind        = "table"
title       = "Loss and return of supply of each meter"
title_zh    = "停电与复电记录"
standard    = "EN 50160:2010"
clause      = "3.8"
category    = "pq"
entity      = "meter_id"
unit        = "min"
owner       = "power-quality"
description = """
A `power_off` of a meter and the `power_on` that follows it within `7 days`: from when to when, how many minutes, and whether it was `short`
(up to `short_upto_s`: 180 s in EN 50160, 60 s in GB/T 30137) or `long`. A length equal to the limit is short. Minutes of `long` times
customers are what SAIDI adds up. Losses that last more than 7 days, or of which one message is missing, are not here; two messages of
a loss in a row count from the later.
"""
params      = { short_upto_s = 180 }
---*/
WITH steps AS (
    SELECT meter_id, start_ts, event_code FROM meter_events WHERE event_code IN ('power_off', 'power_on')
),
pairs AS (
    SELECT meter_id, start_ts, restored_ts
    FROM steps MATCH_RECOGNIZE (
        PARTITION BY meter_id ORDER BY start_ts
        MEASURES first(start_ts) AS start_ts, last(start_ts) AS restored_ts
        PATTERN (off on_again)
        DEFINE off AS event_code = 'power_off',
            on_again AS on_again.event_code = 'power_on' AND on_again.start_ts <= off.start_ts + INTERVAL '7 days'
    )
)
SELECT
    o.meter_id,
    o.start_ts,
    o.restored_ts,
    round((extract(epoch FROM o.restored_ts) - extract(epoch FROM o.start_ts)) / 60, 6) AS outage_min,
    CASE WHEN extract(epoch FROM o.restored_ts) - extract(epoch FROM o.start_ts) <= $short_upto_s THEN 'short' ELSE 'long' END AS length_class,
    p.feeder,
    p.customers
FROM pairs o
LEFT JOIN pq_points p ON p.meter_id = o.meter_id
