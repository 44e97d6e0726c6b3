/*---
id          = "sec_audit_deleted"
kind        = "alert"
title       = "Audit records deleted, or the audit changed"
title_zh    = "审计记录被删除或审计设置被修改"
severity    = "critical"
entity      = "actor_id"
category    = "security"
standard    = "GB/T 22239-2019"
clause      = "8.1.4.3"
owner       = "security"
description = """
One occurrence for each deletion or change of audit records, or of the settings of the audit (kinds of resource that match
`kinds`); of attempts too, as a warning. The standard asks that audit records are protected from deletion and change, so
there is no everyday reason for it; the clean-up at the end of the retention period belongs to one program account.
Not seen: deletions below the application, in the database or on disk; sec_audit_gap finds their traces.
"""
params      = { kinds = "^(audit|audit_log|audit_record|audit_policy|log|logs)$" }
---*/
SELECT
    actor_id,
    ts,
    CASE WHEN coalesce(outcome, 'success') = 'success' THEN 'critical' ELSE 'warning' END AS severity,
    action,
    outcome,
    resource_type,
    resource_id,
    row_count,
    ticket_id,
    system,
    client_ip
FROM sec_actions
WHERE action IN ('delete', 'update', 'purge', 'disable', 'truncate') AND regexp_like(resource_type, $kinds)
