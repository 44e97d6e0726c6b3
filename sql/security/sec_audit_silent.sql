/*---
id          = "sec_audit_silent"
kind        = "alert"
title       = "Audit trail of a system is silent"
title_zh    = "系统的审计数据中断"
severity    = "critical"
entity      = "source"
category    = "security"
unit        = "events"
standard    = "GB/T 22239-2019"
clause      = "8.1.4.3"
owner       = "security"
description = """
Fires when a source that `sources` lists for the stream `access_events` sent no event within an hour (a window ends every
15 minutes), while others did; resolves with the first window that holds one. Somebody switched the audit off, or the
link is broken. The standard asks that the audit process cannot be interrupted unseen. A source that may be quiet at night
should send a `heartbeat`. Judged are sources that are registered throughout the window. Not seen: that all sources are
silent, as then no time passes, and sources that are not registered.
"""
---*/
WITH heard AS (
    SELECT source, window_start, count(*) AS events
    FROM HOP(sec_actions, ts, INTERVAL '15 minutes', INTERVAL '1 hour')
    WHERE source IS NOT NULL
    GROUP BY source, window_start, window_end
),
windows AS (
    SELECT DISTINCT window_start, window_end
    FROM HOP(sec_actions, ts, INTERVAL '15 minutes', INTERVAL '1 hour')
)
SELECT
    s.source,
    w.window_start,
    w.window_end,
    coalesce(h.events, 0) = 0 AS firing,
    coalesce(h.events, 0) AS measured,
    1 AS limit_low,
    'events' AS unit
FROM windows w
CROSS JOIN sources s
LEFT JOIN heard h ON h.source = s.source AND h.window_start = w.window_start
WHERE s.stream = 'access_events'
    AND (s.valid_from IS NULL OR s.valid_from <= w.window_start)
    AND (s.valid_to IS NULL OR s.valid_to >= w.window_end)
