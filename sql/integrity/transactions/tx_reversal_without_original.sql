/*---
id          = "tx_reversal_without_original"
kind        = "alert"
title       = "Reversal without its original"
title_zh    = "冲正无原交易"
severity    = "critical"
entity      = "txn_id"
category    = "business"
standard    = "internal"
owner       = "billing"
description = """
Fires for a step that matches `reversal_steps` and names no transaction in `ref_txn_id`, itself, or one that did not
happen within `within` before it, that included: money goes back for something that was never booked. An original that
comes later than its reversal counts as missing. A reversal of something older than `within` fires wrongly: make it as
long as bills may be contested. Where `txn_id` is missing the case stands for it. Not seen: whether the original is of
the same customer.
"""
[params]
reversal_steps = "_(reversed|refunded|cancelled)$"
within         = "180 days"
---*/
SELECT
    coalesce(r.txn_id, r.case_id) AS txn_id,
    r.event_ts,
    CASE
        WHEN r.ref_txn_id IS NULL THEN 'names no original'
        WHEN r.ref_txn_id = r.txn_id THEN 'names itself'
        ELSE 'original not found'
    END AS reason,
    r.ref_txn_id,
    r.step,
    r.amount,
    r.bill_id,
    r.payment_id,
    r.customer_id,
    r.operator_id,
    r.case_id
FROM business_transactions r
WHERE regexp_like(r.step, $reversal_steps)
    AND NOT EXISTS (
        SELECT 1
        FROM business_transactions o
        WHERE o.txn_id = r.ref_txn_id AND (o.txn_id IS DISTINCT FROM r.txn_id)
            AND o.event_ts BETWEEN r.event_ts - INTERVAL $within AND r.event_ts
    )
