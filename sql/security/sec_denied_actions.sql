/*---
id          = "sec_denied_actions"
kind        = "alert"
title       = "Account was denied many actions"
title_zh    = "账号多次越权被拒"
severity    = "warning"
entity      = "actor_id"
category    = "security"
unit        = "actions"
standard    = "GB/T 22239-2019"
clause      = "8.1.4.2"
owner       = "security"
description = """
Counts the actions that an account was denied within `within` before each of its actions, logins left out, and fires above
`max_denied`: somebody tries what the account may not do, or a role is too narrow for the work. The standard asks for
access control; the number is ours. Resolves with the next action of the account at which the count is within the limit.
Not seen: tries that applications do not record as `denied`.
"""
[params]
within     = "10 minutes"
max_denied = 10
---*/
SELECT
    actor_id,
    ts,
    denied > $max_denied AS firing,
    denied AS measured,
    $max_denied AS limit_high,
    'actions' AS unit,
    $within AS within,
    action,
    resource_type,
    actor_role,
    system,
    client_ip
FROM (
    SELECT
        actor_id,
        ts,
        count(*) FILTER (WHERE outcome = 'denied') OVER (
            PARTITION BY actor_id ORDER BY ts RANGE INTERVAL $within PRECEDING
        ) AS denied,
        action,
        resource_type,
        actor_role,
        system,
        client_ip
    FROM sec_actions
    WHERE action NOT IN ('login', 'heartbeat')
) d
