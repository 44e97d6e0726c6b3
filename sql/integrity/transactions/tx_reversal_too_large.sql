/*---
id          = "tx_reversal_too_large"
kind        = "alert"
title       = "Reversal of more than its original"
title_zh    = "冲正金额超过原交易"
severity    = "critical"
entity      = "txn_id"
category    = "business"
unit        = "1"
standard    = "internal"
owner       = "billing"
description = """
Compares the amount of a step that matches `reversal_steps` with that of the transaction that it names in `ref_txn_id`,
both without sign, as some systems book reversals as negative amounts. Fires if it is larger; equal is right. An
original that stands in several steps under one `txn_id` is compared with each of them. Reversals whose original did not
happen within `within` before them are left to tx_reversal_without_original; those without an amount, or whose original
has none, are not judged. Amounts are in the currency of the source. Several reversals that are too much only together
are left to tx_reversal_twice.
"""
[params]
reversal_steps = "_(reversed|refunded|cancelled)$"
within         = "180 days"
---*/
SELECT
    r.txn_id,
    r.event_ts,
    abs(r.amount) AS measured,
    abs(o.amount) AS limit_high,
    r.ref_txn_id,
    r.step,
    r.bill_id,
    r.customer_id,
    r.operator_id
FROM business_transactions r
JOIN business_transactions o
    ON o.txn_id = r.ref_txn_id AND o.event_ts BETWEEN r.event_ts - INTERVAL $within AND r.event_ts
WHERE regexp_like(r.step, $reversal_steps)
    AND r.txn_id IS NOT NULL AND r.amount IS NOT NULL AND o.amount IS NOT NULL AND o.txn_id <> r.txn_id
    AND abs(r.amount) > abs(o.amount)
