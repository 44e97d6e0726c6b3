/*---
id          = "sec_emergency_account"
kind        = "alert"
title       = "Emergency account used"
title_zh    = "应急账号被使用"
severity    = "critical"
entity      = "actor_id"
category    = "security"
standard    = "internal"
owner       = "security"
description = """
One occurrence for each successful login of an account that `accounts` calls `emergency`: such an account is for the day
on which nothing else works, and each use of it is to be accounted for. A ticket lowers it to a warning. Failed logins are
the matter of sec_login_failures. Not seen: whether there was an emergency.
"""
---*/
SELECT
    l.actor_id,
    l.ts,
    CASE WHEN l.ticket_id IS NULL THEN 'critical' ELSE 'warning' END AS severity,
    l.ticket_id,
    l.system,
    l.client_ip,
    l.session_id
FROM sec_actions l
JOIN accounts a ON a.actor_id = l.actor_id
WHERE l.action = 'login' AND coalesce(l.outcome, 'success') = 'success' AND a.kind = 'emergency'
