/*---
id          = "tx_orphan_payment"
kind        = "alert"
title       = "Payment without a bill"
title_zh    = "缴费无对应账单"
severity    = "warning"
entity      = "payment_id"
category    = "business"
standard    = "internal"
owner       = "billing"
description = """
Fires for a payment whose bill was issued neither within `before` before it nor within `after` after it (both included):
booked on a wrong number, or the bill was lost. It is told when `after` has passed. A payment that names neither bill,
account nor customer cannot belong to anything and fires as well; one that names only an account or customer, such as a
prepayment, does not. Arrears that are paid later than `before` fire wrongly: make it as long as debts live. Not seen: a
payment on a bill of somebody else. Where `payment_id` is missing, `txn_id` or the case stands for it.
"""
[params]
process       = "payment"
step          = "payment_received"
bill_process  = "billing"
bill_step     = "bill_issued"
before        = "90 days"
after         = "3 days"
---*/
SELECT
    coalesce(p.payment_id, p.txn_id, p.case_id) AS payment_id,
    p.event_ts,
    CASE WHEN p.bill_id IS NULL THEN 'names no bill, account or customer' ELSE 'bill was not issued' END AS reason,
    p.bill_id,
    p.amount,
    p.account_id,
    p.customer_id,
    p.channel,
    p.case_id
FROM business_transactions p
WHERE p.process_type = $process AND p.step = $step
    AND (p.bill_id IS NOT NULL OR (p.account_id IS NULL AND p.customer_id IS NULL))
    AND NOT EXISTS (
        SELECT 1
        FROM business_transactions b
        WHERE b.process_type = $bill_process AND b.step = $bill_step AND b.bill_id = p.bill_id
            AND b.event_ts BETWEEN p.event_ts - INTERVAL $before AND p.event_ts + INTERVAL $after
    )
