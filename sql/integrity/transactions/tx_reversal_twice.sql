/*---
id          = "tx_reversal_twice"
kind        = "alert"
title       = "Transaction reversed more than once"
title_zh    = "重复冲正"
severity    = "critical"
entity      = ["ref_txn_id", "txn_id"]
category    = "business"
standard    = "internal"
owner       = "billing"
description = """
Fires for a step that matches `reversal_steps` if another transaction reversed the same original within `within` before
it, that included. Of two at one instant the one with the larger `txn_id` fires. The same reversal delivered again has
the same `txn_id` and is one; reversals without `txn_id` are not judged, as nothing tells a second from a repetition.
Also fires for an original that is paid back in parts.
"""
[params]
reversal_steps = "_(reversed|refunded|cancelled)$"
within         = "180 days"
---*/
WITH reversals AS (
    SELECT txn_id, event_ts, ref_txn_id, step, amount, bill_id, customer_id, operator_id
    FROM business_transactions
    WHERE regexp_like(step, $reversal_steps) AND ref_txn_id IS NOT NULL AND txn_id IS NOT NULL
)
SELECT r.ref_txn_id, r.txn_id, r.event_ts, r.step, r.amount, r.bill_id, r.customer_id, r.operator_id
FROM reversals r
WHERE EXISTS (
    SELECT 1
    FROM reversals e
    WHERE e.ref_txn_id = r.ref_txn_id AND e.txn_id <> r.txn_id
        AND e.event_ts BETWEEN r.event_ts - INTERVAL $within AND r.event_ts
        AND (e.event_ts < r.event_ts OR e.txn_id < r.txn_id)
)
