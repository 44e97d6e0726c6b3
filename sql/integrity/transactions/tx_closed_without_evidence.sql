/*---
id          = "tx_closed_without_evidence"
kind        = "alert"
title       = "Field work was closed without the evidence that it needs"
title_zh    = "现场工单无佐证办结"
severity    = "warning"
version     = "2"
entity      = ["case_id", "process_type", "evidence"]
category    = "business"
standard    = "internal"
owner       = "customer service"
description = """
For each line of `workflow_evidence` the case must carry an attribute of that name, and not an empty one, in the step
that the line names or in one of the case within `within` before it, both included: a photo, a position, a signature.
Fires for each that is missing. Resolves when a step of the case brings it. Processes and steps without a line need no
evidence. Not seen: whether the photo shows what it should.
"""
params      = { within = "60 days" }
---*/
WITH carried AS (
    SELECT b.case_id, b.event_ts, b.process_type, b.step, e.evidence, e.step AS needed_by, b.operator_id, b.org_id
    FROM business_transactions b
    JOIN workflow_evidence e ON e.process_type = b.process_type
    WHERE coalesce(array_element(map_extract(b.attrs, e.evidence), 1), '') <> ''
),
needed AS (
    SELECT b.case_id, b.event_ts, b.process_type, b.step, e.evidence, b.operator_id, b.org_id
    FROM business_transactions b
    JOIN workflow_evidence e ON e.process_type = b.process_type AND e.step = b.step
)
SELECT n.case_id, n.evidence, n.event_ts, TRUE AS firing, n.process_type, n.step, n.operator_id, n.org_id
FROM needed n
WHERE NOT EXISTS (
    SELECT 1
    FROM carried c
    WHERE c.case_id = n.case_id AND c.process_type = n.process_type AND c.evidence = n.evidence
        AND c.needed_by = n.step
        AND c.event_ts BETWEEN n.event_ts - INTERVAL $within AND n.event_ts
)
UNION ALL
SELECT case_id, evidence, event_ts, FALSE AS firing, process_type, step, operator_id, org_id
FROM carried
