/*---
id          = "tx_ledger_days"
kind        = "table"
title       = "What each account was billed and paid on each local day"
title_zh    = "客户每日应收实收台账"
category    = "business"
entity      = "account_id"
unit        = "yuan"
standard    = "internal"
owner       = "billing"
description = """
Sums of the bills, payments and reversals of both, and what the arrears of the account grew by: bills less reversed bills
less payments plus reversed payments. Reversals count by their size, whatever their sign. Arrears at an instant are the
sum of `arrears_change` up to it. A transaction that is delivered twice counts twice. Days are those of UTC+8.
"""
[params]
bill_step     = "bill_issued"
bill_undone   = "^bill_(reversed|cancelled)$"
pay_step      = "payment_received"
pay_undone    = "^payment_(reversed|refunded|cancelled)$"
---*/
WITH sums AS (
    SELECT
        account_id,
        window_start,
        window_end,
        coalesce(sum(amount) FILTER (WHERE step = $bill_step), 0) AS billed,
        coalesce(sum(abs(amount)) FILTER (WHERE regexp_like(step, $bill_undone)), 0) AS billed_undone,
        coalesce(sum(amount) FILTER (WHERE step = $pay_step), 0) AS paid,
        coalesce(sum(abs(amount)) FILTER (WHERE regexp_like(step, $pay_undone)), 0) AS paid_undone
    FROM TUMBLE(business_transactions, event_ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    WHERE account_id IS NOT NULL AND amount IS NOT NULL
        AND (step = $bill_step OR step = $pay_step OR regexp_like(step, $bill_undone) OR regexp_like(step, $pay_undone))
    GROUP BY account_id, window_start, window_end
)
SELECT
    account_id,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_date,
    billed,
    billed_undone,
    paid,
    paid_undone,
    billed - billed_undone AS billed_net,
    paid - paid_undone AS paid_net,
    billed - billed_undone - paid + paid_undone AS arrears_change
FROM sums
