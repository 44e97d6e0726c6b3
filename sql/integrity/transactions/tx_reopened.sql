/*---
id          = "tx_reopened"
kind        = "alert"
title       = "Case goes on after it was closed"
title_zh    = "办结后重新办理"
severity    = "warning"
version     = "2"
entity      = ["case_id", "process_type"]
category    = "business"
standard    = "internal"
owner       = "customer service"
description = """
Fires for a step of a case that was closed (a `last` or `aborted` step of its process in `workflow_steps`) within
`within` before it, that included: the work was not done, or was closed to keep its time. Resolves when the case is
closed again. A case that was never closed, or longer ago, says nothing, nor does a step of another process with the
same `case_id`. Steps at the instant of the closing are taken as before it. Steps that rightly follow a closing, such as
a survey of satisfaction, belong into `ignore_steps`. Unlike tx_illegal_transition it also tells of reopenings that the
workflow allows. Not seen: a new case opened for the same work, which tx_duplicate_work_order does not tell either once
the first is closed.
"""
[params]
ignore_steps = "^(survey_satisfaction|follow_up_call)$"
within       = "7 days"
---*/
SELECT
    case_id,
    event_ts,
    CASE
        WHEN closes THEN FALSE
        WHEN closed_ts < event_ts THEN TRUE
    END AS firing,
    step,
    closed_ts,
    process_type,
    operator_id,
    org_id
FROM (
    SELECT
        *,
        max(CASE WHEN closes THEN event_ts END) OVER (
            PARTITION BY case_id, process_type ORDER BY event_ts RANGE INTERVAL $within PRECEDING
        ) AS closed_ts
    FROM (
        SELECT b.*, e.step IS NOT NULL AS closes
        FROM business_transactions b
        LEFT JOIN workflow_steps e
            ON e.process_type = b.process_type AND e.step = b.step AND e.kind IN ('last', 'aborted')
        WHERE NOT regexp_like(b.step, $ignore_steps)
    ) c
) s
WHERE closed_ts IS NOT NULL
