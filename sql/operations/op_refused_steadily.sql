/*---
id          = "op_refused_steadily"
kind        = "alert"
title       = "A trickle of records is refused without end"
title_zh    = "持续少量拒收记录"
severity    = "warning"
entity      = ["stream", "record_topic", "reason"]
category    = "operations"
unit        = "windows"
standard    = "internal"
owner       = "operations"
description = """
Counts in how many of the six 10-minute windows of an hour records of a topic were refused for one reason, an hour
beginning every 10 minutes, and fires from `windows` on: a few damaged records at a time, far below the limit of
op_refused_records, but all the time, such as one meter that always sends a wrong field. Resolves with the next hour that
holds a refusal and is below. Goes by the time of the refusal. Not seen: how many of the accepted records that is.
"""
params      = { windows = 6 }
---*/
SELECT
    stream,
    record_topic,
    reason,
    window_start,
    window_end,
    count(*) >= $windows AS firing,
    count(*) AS measured,
    $windows - 1 AS limit_high,
    'windows' AS unit,
    sum(refused) AS refused,
    min(first_detail) AS first_detail
FROM HOP((
    SELECT stream, record_topic, reason, window_start AS at, count(*) AS refused, min(detail) AS first_detail
    FROM TUMBLE(dead_letters, refused_at, INTERVAL '10 minutes')
    GROUP BY stream, record_topic, reason, window_start, window_end
), at, INTERVAL '10 minutes', INTERVAL '1 hour')
GROUP BY stream, record_topic, reason, window_start, window_end
