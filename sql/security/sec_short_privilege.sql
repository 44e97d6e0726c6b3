/*---
id          = "sec_short_privilege"
kind        = "alert"
title       = "Role granted and taken back soon after"
title_zh    = "角色授予后很快收回"
severity    = "warning"
entity      = ["granted_to", "target_role"]
category    = "security"
standard    = "internal"
owner       = "security"
description = """
One occurrence for each role that was taken back from an account within `within` of being granted: somebody lent out a
right for a moment, which a weekly list of rights does not show. Look at what the account did between `granted_ts` and the
revocation. Critical if one account did both and wrote no ticket. Not seen: rights that end by themselves, and events
without `resource_id` or `target_role`.
"""
params      = { within = "1 hour" }
---*/
SELECT
    r.resource_id AS granted_to,
    r.target_role,
    r.ts,
    CASE
        WHEN r.actor_id = g.actor_id AND g.ticket_id IS NULL AND r.ticket_id IS NULL THEN 'critical' ELSE 'warning'
    END AS severity,
    g.ts AS granted_ts,
    g.actor_id AS granted_by,
    r.actor_id AS revoked_by,
    coalesce(g.ticket_id, r.ticket_id) AS ticket_id,
    g.system
FROM sec_actions g
JOIN sec_actions r
    ON r.resource_id = g.resource_id AND r.target_role = g.target_role
    AND r.ts BETWEEN g.ts AND g.ts + INTERVAL $within
WHERE g.action = 'grant' AND coalesce(g.outcome, 'success') = 'success'
    AND r.action = 'revoke' AND coalesce(r.outcome, 'success') = 'success'
