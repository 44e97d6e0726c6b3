/*---
id          = "tx_incomplete_case"
kind        = "alert"
title       = "Case was finished without a required step"
title_zh    = "工单办结但缺少必经环节"
severity    = "warning"
version     = "2"
entity      = ["case_id", "process_type", "required_step"]
category    = "business"
standard    = "internal"
owner       = "customer service"
description = """
When a case reaches the last step of its process (`kind` = `last` in the table `workflow_steps`), each step that this
table calls required must have happened in the case within `within` before, that included. One alert for each step that
did not: contracts without a survey, meters that were energised without a check. Resolves if the step is booked later. A
case that was given up (`aborted`) owes nothing. Not judged: processes that are not in the table. Not seen: steps older
than `within`, which make the rule fire wrongly, so make it as long as cases last; and the order of the steps, which
tx_step_without_predecessor and tx_illegal_transition are about.
"""
params      = { within = "180 days" }
---*/
WITH finished AS (
    SELECT b.case_id, b.event_ts, b.process_type, b.step, b.customer_id, b.operator_id, b.org_id
    FROM business_transactions b
    JOIN workflow_steps s ON s.process_type = b.process_type AND s.step = b.step AND s.kind = 'last'
),
owed AS (
    SELECT f.*, r.step AS required_step
    FROM finished f
    JOIN workflow_steps r ON r.process_type = f.process_type AND r.required
)
SELECT
    o.case_id,
    o.required_step,
    o.event_ts,
    TRUE AS firing,
    o.process_type,
    o.step,
    o.customer_id,
    o.operator_id,
    o.org_id
FROM owed o
WHERE NOT EXISTS (
    SELECT 1
    FROM business_transactions h
    WHERE h.case_id = o.case_id AND h.process_type = o.process_type AND h.step = o.required_step
        AND h.event_ts BETWEEN o.event_ts - INTERVAL $within AND o.event_ts
)
UNION ALL
SELECT
    b.case_id,
    b.step AS required_step,
    b.event_ts,
    FALSE AS firing,
    b.process_type,
    b.step,
    b.customer_id,
    b.operator_id,
    b.org_id
FROM business_transactions b
JOIN workflow_steps r ON r.process_type = b.process_type AND r.step = b.step AND r.required
