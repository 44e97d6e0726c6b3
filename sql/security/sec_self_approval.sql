/*---
id          = "sec_self_approval"
kind        = "alert"
title       = "Somebody approved an own change"
title_zh    = "自己批准自己的修改"
severity    = "critical"
entity      = ["actor_id", "resource"]
category    = "security"
standard    = "internal"
owner       = "security"
description = """
One occurrence for each approval or release (`approvals`) of a resource by an account that created or changed that
resource within `within` before: the second pair of eyes was missing. Of business cases the same is said by
tx_segregation. Events without `resource_id` are not judged. Not seen: one person with two accounts, and a change of
somebody else in between that is in truth the one approved.
"""
[params]
approvals = "^(approve|approved|release|released|publish|sign)$"
within    = "30 days"
---*/
SELECT
    a.actor_id,
    a.resource_id AS resource,
    a.ts,
    a.action,
    a.resource_type,
    a.ticket_id,
    a.system
FROM sec_actions a
WHERE regexp_like(a.action, $approvals) AND coalesce(a.outcome, 'success') = 'success' AND a.resource_id IS NOT NULL
    AND EXISTS (
        SELECT 1
        FROM sec_actions c
        WHERE c.actor_id = a.actor_id AND c.resource_id = a.resource_id AND c.action IN ('create', 'update')
            AND (c.resource_type IS NOT DISTINCT FROM a.resource_type) AND coalesce(c.outcome, 'success') = 'success'
            AND c.ts BETWEEN a.ts - INTERVAL $within AND a.ts
    )
