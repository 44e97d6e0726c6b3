/*---
id          = "sec_self_grant"
kind        = "alert"
title       = "Somebody granted a role to an own account"
title_zh    = "为自己的账号授予角色"
severity    = "critical"
entity      = "actor_id"
category    = "security"
standard    = "GB/T 22239-2019"
clause      = "8.1.4.2"
owner       = "security"
description = """
One occurrence for each role that was granted to the account of the one who granted it, or to another account of the same
person (`person_id` in `accounts`). A ticket does not make it good: somebody else has to grant it. The receiver is
`resource_id`. Attempts that failed or were denied are left out. Not seen: two people who grant roles to each other,
and accounts whose person is not registered, beyond the account itself.
"""
---*/
SELECT
    g.actor_id,
    g.ts,
    g.resource_id AS granted_to,
    g.target_role,
    a.person_id,
    g.ticket_id,
    g.system,
    g.client_ip
FROM sec_actions g
LEFT JOIN accounts a ON a.actor_id = g.actor_id
LEFT JOIN accounts t ON t.actor_id = g.resource_id
WHERE g.action = 'grant' AND coalesce(g.outcome, 'success') = 'success'
    AND (g.resource_id = g.actor_id OR t.person_id = a.person_id)
