/*---
id          = "tx_payment_unknown_account"
kind        = "alert"
title       = "Payment for an account that does not exist"
title_zh    = "缴费户号不存在"
severity    = "warning"
entity      = "payment_id"
category    = "business"
standard    = "internal"
owner       = "billing"
description = """
Fires for a payment that names an account which `customer_accounts` does not have at that time, nor had within `grace`
before it, as people pay their last bill after they moved out. Money lies on an account that nobody looks at. A payment
that names no account is for tx_orphan_payment. An occurrence: it does not resolve. Where `payment_id` is missing,
`txn_id` or the case stands for it.
"""
params      = { process = "payment", step = "payment_received", grace = "90 days" }
---*/
SELECT
    coalesce(p.payment_id, p.txn_id, p.case_id) AS payment_id,
    p.event_ts,
    p.account_id,
    p.amount,
    p.bill_id,
    p.channel,
    p.customer_id,
    p.case_id
FROM business_transactions p
WHERE p.process_type = $process AND p.step = $step AND p.account_id IS NOT NULL
    AND NOT EXISTS (
        SELECT 1
        FROM customer_accounts a
        WHERE a.account_id = p.account_id
            AND (a.valid_from IS NULL OR a.valid_from <= p.event_ts)
            AND (a.valid_to IS NULL OR p.event_ts < a.valid_to + INTERVAL $grace)
    )
