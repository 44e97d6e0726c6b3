/*---
id          = "sec_grant_without_ticket"
kind        = "alert"
title       = "Role granted without a ticket"
title_zh    = "无工单授予角色"
severity    = "warning"
entity      = ["actor_id", "granted_to"]
category    = "security"
standard    = "GB/T 22239-2019"
clause      = "8.1.4.2"
owner       = "security"
description = """
One occurrence for each role that was granted without `ticket_id`: nobody asked for it, or nobody wrote it down. Critical
for roles that `roles` calls privileged, and for roles that are not in that table. `granted_to` is `resource_id`, the
account that received the role. Attempts that failed or were denied are left out. The standard asks that rights are given
as far as needed; that a grant needs a ticket is ours. Not seen: whether the ticket exists and covers this role, and
roles that are given outside of the systems that send access events.
"""
---*/
SELECT
    g.actor_id,
    coalesce(g.resource_id, 'unknown') AS granted_to,
    g.ts,
    CASE WHEN coalesce(r.is_privileged, TRUE) THEN 'critical' ELSE 'warning' END AS severity,
    g.target_role,
    r.is_privileged,
    g.actor_role,
    g.system,
    g.client_ip
FROM sec_actions g
LEFT JOIN roles r ON r.role = g.target_role
WHERE g.action = 'grant' AND coalesce(g.outcome, 'success') = 'success' AND g.ticket_id IS NULL
