/*---
id          = "sec_activity_days"
kind        = "table"
title       = "What each account did on each local day"
title_zh    = "账号每日活动统计"
category    = "security"
entity      = "actor_id"
standard    = "internal"
owner       = "security"
key         = "actor_id"
description = """
One row per account and local day (UTC+8) with at least one event: logins and failures, denied actions, exports and their
rows, reads, changes, grants, places. For the audit of a person, and to find limits for the other rules. `exported_rows`
leaves out exports of unknown size, which `exports_without_size` counts. An account without an event has no row.
"""
---*/
SELECT
    actor_id,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_date,
    count(*) AS events,
    count(*) FILTER (WHERE action = 'login' AND outcome = 'success') AS logins,
    count(*) FILTER (WHERE action = 'login' AND outcome IN ('failure', 'denied')) AS failed_logins,
    count(*) FILTER (WHERE action <> 'login' AND outcome = 'denied') AS denied_actions,
    count(*) FILTER (WHERE action = 'export' AND coalesce(outcome, 'success') = 'success') AS exports,
    count(*) FILTER (
        WHERE action = 'export' AND coalesce(outcome, 'success') = 'success' AND row_count IS NULL
    ) AS exports_without_size,
    sum(CAST(row_count AS DECIMAL(38, 0))) FILTER (
        WHERE action = 'export' AND coalesce(outcome, 'success') = 'success' AND row_count >= 0
    ) AS exported_rows,
    count(*) FILTER (WHERE action = 'read' AND coalesce(outcome, 'success') = 'success') AS reads,
    count(*) FILTER (
        WHERE action IN ('create', 'update', 'delete', 'config_write') AND coalesce(outcome, 'success') = 'success'
    ) AS changes,
    count(*) FILTER (
        WHERE action IN ('grant', 'revoke') AND coalesce(outcome, 'success') = 'success'
    ) AS grants,
    count(DISTINCT network) AS places,
    min(ts) AS first_ts,
    max(ts) AS last_ts
FROM TUMBLE(sec_actions, ts, INTERVAL '1 day', 'Asia/Shanghai')
GROUP BY actor_id, window_start, window_end
