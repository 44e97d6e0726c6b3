/*---
id          = "pq_event_spans"
kind        = "view"
title       = "Event rows with the end of what lasted before them"
title_zh    = "电压事件时段"
standard    = "internal"
category    = "pq"
owner       = "power-quality"
description = """
Dips, swells and interruptions of pq_event_rows, with whether a row overlaps one before it of the same point and direction: then both
are phases of one event. Events that last, and so have no end yet, count as 0 ms long here.
"""
---*/
SELECT *, start_ms <= lag(latest_end_ms) OVER (PARTITION BY meter_id, direction ORDER BY start_ts) AS overlaps
FROM (
    SELECT *, max(coalesce(end_ms, start_ms)) OVER (PARTITION BY meter_id, direction ORDER BY start_ts ROWS 100 PRECEDING) AS latest_end_ms
    FROM pq_event_rows
    WHERE direction <> 'change'
) r
