/*---
id          = "tx_step_without_predecessor"
kind        = "alert"
title       = "Step was taken before any of the steps that must come before it"
title_zh    = "环节缺少前置环节"
severity    = "warning"
version     = "2"
entity      = ["case_id", "process_type", "step"]
category    = "business"
standard    = "internal"
owner       = "customer service"
description = """
Fires for a step of a case if none of the steps from which the table `workflow_transitions` leads to it happened in the
case within `within` before, that included: a meter installed without a contract, a case that begins in its middle. A
first step (`workflow_steps`) needs none. Resolves when such a step is booked later. Steps of one instant count as before
each other. Not judged: processes and steps that are not in `workflow_steps`. Cases that began before the data did fire
wrongly, as do those in which more than `within` lies between two steps. Not seen: whether the step directly before was
a right one, which tx_illegal_transition tells.
"""
params      = { within = "180 days" }
---*/
WITH reached AS (
    SELECT b.case_id, b.event_ts, b.process_type, t.to_step, b.step AS from_step
    FROM business_transactions b
    JOIN workflow_transitions t ON t.process_type = b.process_type AND t.from_step = b.step
    WHERE t.to_step <> t.from_step
),
later AS (
    SELECT b.case_id, b.event_ts, b.process_type, b.step, b.operator_id, b.org_id
    FROM business_transactions b
    JOIN workflow_steps s ON s.process_type = b.process_type AND s.step = b.step AND s.kind <> 'first'
)
SELECT
    l.case_id,
    l.step,
    l.event_ts,
    TRUE AS firing,
    l.process_type,
    CAST(NULL AS VARCHAR) AS predecessor,
    l.operator_id,
    l.org_id
FROM later l
WHERE NOT EXISTS (
    SELECT 1
    FROM reached r
    WHERE r.case_id = l.case_id AND r.process_type = l.process_type AND r.to_step = l.step
        AND r.event_ts BETWEEN l.event_ts - INTERVAL $within AND l.event_ts
)
UNION ALL
SELECT
    r.case_id,
    r.to_step AS step,
    r.event_ts,
    FALSE AS firing,
    r.process_type,
    r.from_step AS predecessor,
    CAST(NULL AS VARCHAR) AS operator_id,
    CAST(NULL AS VARCHAR) AS org_id
FROM reached r
