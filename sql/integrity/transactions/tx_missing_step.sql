/*---
id          = "tx_missing_step"
kind        = "alert"
title       = "Case reached payment without its final approval"
severity    = "warning"
entity      = "case_id"
category    = "business"
standard    = "internal"
owner       = "billing"
description = """
Looks at the cases of one process that both begin and are paid within the same 28 days (windows aligned to
1970-01-01 UTC): all that lies between must be in the same window, so a missing approval is really missing. Cases that
begin in one window and are paid in a later one are not judged, and the alert comes when the window closes: this rule
catches a broken workflow, not each single case.
"""
[params]
process       = "domestic"
first_step    = "Declaration SUBMITTED by EMPLOYEE"
required_step = "Declaration FINAL_APPROVED by SUPERVISOR"
last_step     = "Payment Handled"
---*/
SELECT
    case_id,
    window_start,
    window_end,
    first_ts,
    paid_ts,
    events,
    amount,
    $required_step AS missing_step
FROM (
    SELECT
        case_id,
        window_start,
        window_end,
        min(event_ts) FILTER (WHERE step = $first_step) AS first_ts,
        max(event_ts) FILTER (WHERE step = $last_step) AS paid_ts,
        count(*) FILTER (WHERE step = $required_step) AS approvals,
        count(*) AS events,
        max(amount) AS amount
    FROM TUMBLE(business_transactions, event_ts, INTERVAL '28 days')
    WHERE process_type = $process
    GROUP BY case_id, window_start, window_end
) c
WHERE first_ts IS NOT NULL AND paid_ts > first_ts AND approvals = 0
