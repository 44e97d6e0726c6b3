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
Follows each case of one process from its first step to its payment, and fires with a payment that no approval came
before. Steps may repeat; what counts is that none between a first step and the payment is the approval. A case that
takes longer than `within` is not judged. It needs no table; tx_incomplete_case asks the same of all processes and
required steps of `workflow_steps`, and resolves.
"""
[params]
process       = "domestic"
first_step    = "Declaration SUBMITTED by EMPLOYEE"
required_step = "Declaration FINAL_APPROVED by SUPERVISOR"
last_step     = "Payment Handled"
within        = "400 days"
---*/
WITH steps AS (SELECT * FROM business_transactions WHERE process_type = $process)
SELECT
    case_id,
    event_ts,
    first_ts,
    events,
    case_amount AS amount,
    $required_step AS missing_step
FROM steps MATCH_RECOGNIZE (
    PARTITION BY case_id
    ORDER BY event_ts
    MEASURES
        first(event_ts) AS first_ts,
        count(*) AS events,
        max(amount) AS case_amount,
        classifier() AS part
    ALL ROWS PER MATCH
    PATTERN (begun other* paid)
    DEFINE
        begun AS step = $first_step,
        other AS step <> $required_step AND step <> $last_step AND event_ts <= first(event_ts) + INTERVAL $within,
        paid AS step = $last_step AND event_ts <= first(event_ts) + INTERVAL $within
)
WHERE part = 'paid'
