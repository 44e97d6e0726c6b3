/*---
id          = "tx_arrears_mismatch"
kind        = "alert"
title       = "Arrears of an account changed by something else than its bills and payments"
title_zh    = "应收实收与欠费不平"
severity    = "critical"
entity      = "account_id"
category    = "business"
unit        = "yuan"
standard    = "internal"
owner       = "billing"
description = """
Between two statements of the arrears of an account (step `stated_step`, `amount` = what is owed, negative if the
customer has money there) they must have changed by the bills less their reversals less the payments plus theirs, with
those at the instant of the later statement. Fires if not, by more than `tolerance_yuan`: money was booked that never
came, or came and was not booked. Resolves at the first statement that fits the one before, so each mistake is told once:
look at `difference_yuan`. The first statement of an account says nothing. Reversals count by their size, whatever their
sign. A transaction that is delivered twice counts twice, and fires. Transactions without an account are not seen.
"""
[params]
stated_step    = "arrears_stated"
bill_step      = "bill_issued"
bill_undone    = "^bill_(reversed|cancelled)$"
pay_step       = "payment_received"
pay_undone     = "^payment_(reversed|refunded|cancelled)$"
tolerance_yuan = 0.01
---*/
WITH booked AS (
    SELECT
        account_id,
        event_ts,
        step = $stated_step AS states,
        amount,
        sum(
            CASE
                WHEN step = $bill_step THEN amount
                WHEN regexp_like(step, $bill_undone) THEN -abs(amount)
                WHEN step = $pay_step THEN -amount
                WHEN regexp_like(step, $pay_undone) THEN abs(amount)
                ELSE 0
            END
        ) OVER (PARTITION BY account_id ORDER BY event_ts) AS booked_total,
        org_id,
        customer_id
    FROM business_transactions
    WHERE account_id IS NOT NULL AND amount IS NOT NULL
        AND (
            step = $stated_step OR step = $bill_step OR step = $pay_step
            OR regexp_like(step, $bill_undone) OR regexp_like(step, $pay_undone)
        )
),
statements AS (
    SELECT
        *,
        lag(event_ts) OVER w AS before_ts,
        amount - lag(amount) OVER w AS stated_change,
        booked_total - lag(booked_total) OVER w AS booked_change
    FROM booked
    WHERE states
    WINDOW w AS (PARTITION BY account_id ORDER BY event_ts)
)
SELECT
    account_id,
    event_ts,
    abs(stated_change - booked_change) > $tolerance_yuan AS firing,
    stated_change AS measured,
    booked_change - $tolerance_yuan AS limit_low,
    booked_change + $tolerance_yuan AS limit_high,
    'yuan' AS unit,
    stated_change - booked_change AS difference_yuan,
    booked_change,
    amount AS stated_amount,
    before_ts,
    customer_id,
    org_id
FROM statements
WHERE before_ts IS NOT NULL
