/*---
id          = "sec_rule_changed"
kind        = "alert"
title       = "Rule, threshold or limit changed"
title_zh    = "规则、阈值或限值被修改"
severity    = "info"
entity      = ["resource_type", "resource"]
category    = "security"
standard    = "GB/T 22239-2019"
clause      = "8.1.4.3"
owner       = "security"
description = """
One occurrence for each rule, threshold, tariff, reference table or alarm setting (`kinds`) that was created, changed or
deleted: who, what, from which value to which. A warning without `ticket_id`, and for a deletion. So that nobody can raise
a limit unseen to hide what it would have told. The standard asks that important acts of users are recorded.
Attempts that failed are left out. Not seen: files that are edited by hand, without an application that tells.
"""
params      = { kinds = "^(rule|threshold|limit|tariff|reference|alarm|alert|parameter)s?$" }
---*/
SELECT
    resource_type,
    coalesce(resource_id, 'unknown') AS resource,
    ts,
    CASE WHEN ticket_id IS NULL OR action = 'delete' THEN 'warning' ELSE 'info' END AS severity,
    action,
    actor_id,
    actor_role,
    old_value,
    new_value,
    ticket_id,
    system,
    client_ip
FROM sec_actions
WHERE action IN ('create', 'update', 'delete') AND coalesce(outcome, 'success') = 'success'
    AND regexp_like(resource_type, $kinds)
