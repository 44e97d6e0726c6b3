/*---
id          = "tx_disconnected_while_paid"
kind        = "alert"
title       = "Customer was cut off although the debt was paid"
title_zh    = "已缴费仍被停电"
severity    = "critical"
entity      = "account_id"
category    = "business"
unit        = "yuan"
standard    = "internal"
owner       = "billing"
description = """
Fires for a disconnection if its debt was paid within `within` before it, the instant included, by one payment that was
not undone before it: of the bill that the disconnection names, or else of its account, after the notice in the same
case. The payment must be at least the `amount` that the disconnection names. Resolves when the account is reconnected.
Not judged: disconnections without an account, or that name neither a bill nor were announced. Not seen: a debt that
several payments paid together.
"""
[params]
process     = "disconnect"
step        = "disconnected"
notice_step = "notice"
back_step   = "reconnected"
pay_step    = "payment_received"
pay_undone  = "^payment_(reversed|refunded|cancelled)$"
within      = "60 days"
---*/
WITH notices AS (
    SELECT case_id, event_ts
    FROM business_transactions
    WHERE process_type = $process AND step = $notice_step
),
cuts AS (
    SELECT case_id, event_ts, account_id, bill_id, amount, customer_id, org_id, operator_id,
        coalesce(bill_id, account_id) AS debt
    FROM business_transactions
    WHERE process_type = $process AND step = $step AND account_id IS NOT NULL
),
payments AS (
    SELECT bill_id AS debt, TRUE AS of_bill, event_ts, amount, payment_id
    FROM business_transactions
    WHERE step = $pay_step AND bill_id IS NOT NULL AND amount IS NOT NULL
    UNION ALL
    SELECT account_id AS debt, FALSE AS of_bill, event_ts, amount, payment_id
    FROM business_transactions
    WHERE step = $pay_step AND account_id IS NOT NULL AND amount IS NOT NULL
),
announced AS (
    SELECT c.*, n.event_ts AS notice_ts
    FROM cuts c
    LEFT JOIN notices n
        ON n.case_id = c.case_id AND n.event_ts BETWEEN c.event_ts - INTERVAL $within AND c.event_ts
),
paid AS (
    SELECT c.*, p.event_ts AS paid_ts, p.amount AS paid_yuan, p.payment_id
    FROM announced c
    JOIN payments p
        ON p.debt = c.debt AND p.of_bill = (c.bill_id IS NOT NULL)
        AND p.event_ts BETWEEN c.event_ts - INTERVAL $within AND c.event_ts
    WHERE p.amount >= coalesce(c.amount, 0) AND (c.bill_id IS NOT NULL OR p.event_ts >= c.notice_ts)
)
SELECT
    p.account_id,
    p.event_ts,
    TRUE AS firing,
    p.paid_yuan AS measured,
    p.amount AS limit_high,
    'yuan' AS unit,
    p.paid_ts,
    p.payment_id,
    p.bill_id,
    p.case_id,
    p.customer_id,
    p.operator_id,
    p.org_id
FROM paid p
WHERE NOT EXISTS (
    SELECT 1
    FROM business_transactions u
    WHERE regexp_like(u.step, $pay_undone) AND u.payment_id = p.payment_id
        AND u.event_ts BETWEEN p.event_ts - INTERVAL $within AND p.event_ts
)
UNION ALL
SELECT
    account_id,
    event_ts,
    FALSE AS firing,
    CAST(NULL AS DECIMAL(18, 2)) AS measured,
    CAST(NULL AS DECIMAL(18, 2)) AS limit_high,
    'yuan' AS unit,
    CAST(NULL AS TIMESTAMP) AT TIME ZONE 'UTC' AS paid_ts,
    CAST(NULL AS VARCHAR) AS payment_id,
    bill_id,
    case_id,
    customer_id,
    operator_id,
    org_id
FROM business_transactions
WHERE step = $back_step AND account_id IS NOT NULL
