/*---
id          = "tx_status_break"
kind        = "alert"
title       = "Step does not begin in the state in which the one before it ended"
title_zh    = "工单状态不衔接"
severity    = "critical"
version     = "2"
entity      = ["case_id", "process_type"]
category    = "business"
standard    = "internal"
owner       = "customer service"
description = """
Compares `status_from` of each step with `status_to` of the step before it in the case. They differ if a step was lost
on the way, was done twice, or went around the workflow. Steps that give neither state are passed over; a pair of which
one state is missing is not judged, nor one that is more than `within` apart, nor steps of two processes that happen to
use one `case_id`. Steps of one instant have no order of their own, and may be compared the wrong way round. Whether a
transition is allowed at all needs a table of transitions, and is not seen.
"""
params      = { within = "60 days" }
---*/
WITH steps AS (SELECT * FROM business_transactions WHERE status_from IS NOT NULL OR status_to IS NOT NULL)
SELECT
    case_id,
    event_ts,
    step_before,
    ended_in AS status_to_before,
    step,
    status_from,
    status_to,
    ts_before,
    process_type,
    operator_id,
    txn_id
FROM steps MATCH_RECOGNIZE (
    PARTITION BY case_id, process_type
    ORDER BY event_ts
    MEASURES
        classifier() AS part,
        a.status_to AS ended_in,
        a.step AS step_before,
        a.event_ts AS ts_before
    ALL ROWS PER MATCH
    AFTER MATCH SKIP TO LAST b
    PATTERN (a b)
    DEFINE b AS b.event_ts <= a.event_ts + INTERVAL $within
)
WHERE part = 'b' AND status_from <> ended_in
