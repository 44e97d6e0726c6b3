/*---
id          = "op_source_silent"
kind        = "alert"
title       = "Head end delivers no readings"
title_zh    = "主站前置系统停止送数"
severity    = "critical"
entity      = "source"
category    = "operations"
unit        = "readings"
standard    = "internal"
owner       = "operations"
description = """
Fires when a source that `sources` lists for the stream `meter_readings` delivered no reading within 30 minutes (a window
ends every 15) while others did; resolves with the first window that holds one. The head end, its link or its topic is
down, and thousands of meters with it: look here before the single meters. Judged are sources that are registered
throughout the window. Not seen: that all sources are silent, as then no time passes; and a head end that still sends a
part of its meters, which is op_collection_rate.
"""
---*/
WITH heard AS (
    SELECT source, window_start, count(*) AS readings, count(DISTINCT meter_id) AS meters
    FROM HOP(meter_readings, ts, INTERVAL '15 minutes', INTERVAL '30 minutes')
    WHERE source IS NOT NULL
    GROUP BY source, window_start, window_end
),
windows AS (
    SELECT DISTINCT window_start, window_end
    FROM HOP(meter_readings, ts, INTERVAL '15 minutes', INTERVAL '30 minutes')
)
SELECT
    s.source,
    w.window_start,
    w.window_end,
    coalesce(h.readings, 0) = 0 AS firing,
    coalesce(h.readings, 0) AS measured,
    1 AS limit_low,
    'readings' AS unit,
    coalesce(h.meters, 0) AS meters
FROM windows w
CROSS JOIN sources s
LEFT JOIN heard h ON h.source = s.source AND h.window_start = w.window_start
WHERE s.stream = 'meter_readings'
    AND (s.valid_from IS NULL OR s.valid_from <= w.window_start)
    AND (s.valid_to IS NULL OR s.valid_to >= w.window_end)
