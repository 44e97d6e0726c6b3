/*---
id          = "tx_unpaid_bill"
kind        = "alert"
title       = "Bill not paid in time"
title_zh    = "账单逾期未缴"
severity    = "warning"
entity      = "bill_id"
category    = "business"
standard    = "internal"
owner       = "billing"
description = """
Fires for an issued bill of more than nothing on which no payment came from its issue to `within` later, that instant
included; told when that time has passed. A later payment resolves it, told in turn `within` after the payment, as
results come in the order of their times. A bill that was reversed in time (a step that matches `reversal_steps` with
its `bill_id`) is settled. Not seen: what is still owed, as a payment of a part counts as a payment, and one that was
undone later too; payments before the issue; payments that name only the account.
"""
[params]
process        = "billing"
step           = "bill_issued"
pay_process    = "payment"
pay_step       = "payment_received"
reversal_steps = "^bill_(reversed|cancelled)$"
within         = "30 days"
---*/
WITH settled AS (
    SELECT bill_id, event_ts
    FROM business_transactions
    WHERE (process_type = $pay_process AND step = $pay_step) OR regexp_like(step, $reversal_steps)
),
told AS (
    SELECT *, process_type = $process AND step = $step AS issued
    FROM business_transactions
    WHERE bill_id IS NOT NULL
        AND (
            (process_type = $process AND step = $step AND amount > 0)
            OR (process_type = $pay_process AND step = $pay_step)
            OR regexp_like(step, $reversal_steps)
        )
)
SELECT
    t.bill_id,
    t.event_ts,
    t.issued AND s.bill_id IS NULL AS firing,
    t.step,
    s.event_ts AS settled_ts,
    t.amount,
    t.bill_period,
    t.account_id,
    t.customer_id
FROM told t
LEFT JOIN settled s
    ON s.bill_id = t.bill_id AND t.issued AND s.event_ts BETWEEN t.event_ts AND t.event_ts + INTERVAL $within
