/*---
id          = "op_refused_records"
kind        = "alert"
title       = "Records of a stream are refused"
severity    = "warning"
entity      = ["stream", "reason"]
category    = "operations"
unit        = "records"
standard    = "internal"
owner       = "operations"
description = """
Counts the records and events that were refused in 10 minutes, by stream and reason. A single damaged record is in
`dead_letters` and alarms nobody; a sender that has changed its format does. Goes by the time of the refusal: after a stop, what had
gathered meanwhile is counted when it is read.
"""
params      = { records = 100 }
---*/
SELECT
    stream,
    reason,
    window_start,
    window_end,
    refused AS measured,
    $records AS limit_high,
    first_detail,
    topics
FROM (
    SELECT
        stream,
        reason,
        window_start,
        window_end,
        count(*) AS refused,
        min(detail) AS first_detail,
        count(DISTINCT record_topic) AS topics
    FROM TUMBLE(dead_letters, refused_at, INTERVAL '10 minutes')
    GROUP BY stream, reason, window_start, window_end
) r
WHERE refused > $records
