/*---
id          = "tx_segregation"
kind        = "alert"
title       = "Same person created and approved a case"
title_zh    = "同一人员制单并审批"
severity    = "critical"
version     = "2"
entity      = ["case_id", "process_type", "operator_id"]
category    = "security"
standard    = "internal"
owner       = "audit"
description = """
Fires for an approval (a step that matches `approve_steps`) by the operator who did a creating step of the same case
(one that matches `create_steps`) within `within` before, that included: the check by a second person did not take
place. A case is known by its `case_id` within its process. Creating at the instant of the approval counts as before it.
Steps without an operator are not judged, nor those of machines, whose names match `machines`. Not seen: one person with
two accounts, or two who share one.
"""
[params]
create_steps  = "^(apply|create|created|enter|entered|submit|submitted)$"
approve_steps = "^(approve|approved|design_review|final_approve|final_approved|release|released)$"
machines      = "(?i)^(system|batch|robot|billing-run)$"
within        = "30 days"
---*/
SELECT a.case_id, a.operator_id, a.event_ts, a.step, a.process_type, a.operator_role, a.amount, a.org_id, a.txn_id
FROM business_transactions a
WHERE regexp_like(a.step, $approve_steps) AND NOT regexp_like(a.operator_id, $machines)
    AND EXISTS (
        SELECT 1
        FROM business_transactions c
        WHERE c.case_id = a.case_id AND c.process_type = a.process_type AND c.operator_id = a.operator_id
            AND regexp_like(c.step, $create_steps)
            AND c.event_ts BETWEEN a.event_ts - INTERVAL $within AND a.event_ts
    )
