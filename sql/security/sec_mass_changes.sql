/*---
id          = "sec_mass_changes"
kind        = "alert"
title       = "Account changed or deleted very many records within an hour"
title_zh    = "一小时内大量修改或删除记录"
severity    = "warning"
entity      = "actor_id"
category    = "security"
unit        = "changes"
standard    = "internal"
owner       = "security"
description = """
Counts what an account created, updated, deleted or wrote to meters within an hour (a window ends every 15 minutes) and
fires above `changes_per_h` of `accounts`, else `max_changes`; critical if more than half of it was deleted. A planned
clean-up looks alike: give the account its own limit for that day. Changes that failed or were denied are not counted.
Resolves in the next window with changes that is within the limit. Steps of business cases are another stream, see
tx_bulk_changes. Not seen: one statement that changes many records and is recorded as one event, except by its `row_count`.
"""
[params]
max_changes = 100
actions     = "^(create|update|delete|config_write)$"
---*/
SELECT
    w.actor_id,
    w.window_start,
    w.window_end,
    w.changes > coalesce(TRY_CAST(a.changes_per_h AS BIGINT), $max_changes) AS firing,
    CASE WHEN w.deletes * 2 > w.changes THEN 'critical' ELSE 'warning' END AS severity,
    w.changes AS measured,
    coalesce(TRY_CAST(a.changes_per_h AS BIGINT), $max_changes) AS limit_high,
    'changes' AS unit,
    w.deletes,
    w.events,
    w.without_ticket
FROM (
    SELECT
        actor_id,
        window_start,
        window_end,
        sum(changed) AS changes,
        coalesce(sum(changed) FILTER (WHERE action = 'delete'), 0) AS deletes,
        count(*) AS events,
        count(*) FILTER (WHERE ticket_id IS NULL) AS without_ticket
    FROM HOP((
        -- An event changes one record unless it says how many.
        SELECT
            actor_id,
            ts,
            action,
            ticket_id,
            CASE WHEN row_count > 1 THEN least(row_count, 1000000000) ELSE 1 END AS changed
        FROM sec_actions
        WHERE regexp_like(action, $actions) AND coalesce(outcome, 'success') = 'success'
    ), ts, INTERVAL '15 minutes', INTERVAL '1 hour')
    GROUP BY actor_id, window_start, window_end
) w
LEFT JOIN accounts a ON a.actor_id = w.actor_id
