/*---
id          = "tx_unpaid_bill"
kind        = "alert"
title       = "Bill not paid in time"
title_zh    = "账单逾期未缴"
severity    = "warning"
version     = "1.1"
entity      = "bill_id"
category    = "business"
standard    = "internal"
owner       = "billing"
description = """
Fires for an issued bill of more than nothing on which no payment came from its issue to `within` later, that instant
included; told when that time has passed. A payment that was undone by then (a step that matches `pay_undone` with its
`payment_id`: it bounced, was refunded or reversed) is none. One that is undone later, up to `undone_within` after it,
makes the bill owed anew: it fires as of that step, unless another payment came, from `within` before the first one to
`within` after that step. A later payment that is not undone within `within` resolves, told in turn `within` after the
payment, as results come in the order of their times. A bill that was reversed in time (a step that matches
`reversal_steps` with its `bill_id`) is settled. Not seen: what is still owed, as a payment of a part counts as a
payment; payments before the issue; payments that name only the account; a payment without `payment_id` that was undone.
"""
[params]
process        = "billing"
step           = "bill_issued"
pay_process    = "payment"
pay_step       = "payment_received"
pay_undone     = "^payment_(reversed|refunded|cancelled)$"
reversal_steps = "^bill_(reversed|cancelled)$"
within         = "30 days"
undone_within  = "60 days"
---*/
WITH undone AS (
    SELECT payment_id, event_ts, step
    FROM business_transactions
    WHERE regexp_like(step, $pay_undone) AND payment_id IS NOT NULL
),
settlements AS (
    SELECT
        *,
        -- What undoes a payment names the payment; a reversed bill stays reversed.
        CASE WHEN process_type = $pay_process AND step = $pay_step THEN payment_id END AS paid_by
    FROM business_transactions
    WHERE bill_id IS NOT NULL
        AND ((process_type = $pay_process AND step = $pay_step) OR regexp_like(step, $reversal_steps))
),
owed AS (
    SELECT bill_id, event_ts, TRUE AS issued, step, amount, bill_period, account_id, customer_id
    FROM business_transactions
    WHERE process_type = $process AND step = $step AND amount > 0 AND bill_id IS NOT NULL
    UNION ALL
    SELECT s.bill_id, u.event_ts, FALSE AS issued, u.step, s.amount, s.bill_period, s.account_id, s.customer_id
    FROM undone u
    JOIN settlements s
        ON s.paid_by = u.payment_id AND s.event_ts BETWEEN u.event_ts - INTERVAL $undone_within AND u.event_ts
),
settled AS (
    SELECT o.bill_id, o.event_ts, o.issued, s.event_ts AS settled_ts, s.paid_by
    FROM owed o
    JOIN settlements s
        ON s.bill_id = o.bill_id
        AND s.event_ts BETWEEN o.event_ts - INTERVAL $undone_within - INTERVAL $within AND o.event_ts + INTERVAL $within
    WHERE s.event_ts >= o.event_ts OR NOT o.issued
),
kept AS (
    SELECT s.bill_id, s.event_ts, s.issued, s.settled_ts
    FROM settled s
    WHERE NOT EXISTS (
        SELECT 1
        FROM undone u
        WHERE u.payment_id = s.paid_by AND u.event_ts >= s.settled_ts
            AND u.event_ts BETWEEN s.event_ts - INTERVAL $undone_within - INTERVAL $within AND s.event_ts + INTERVAL $within
    )
)
SELECT
    o.bill_id,
    o.event_ts,
    -- A payment that was undone and made good says nothing: the payments do.
    CASE WHEN k.bill_id IS NULL THEN TRUE WHEN o.issued THEN FALSE END AS firing,
    o.step,
    k.settled_ts,
    o.amount,
    o.bill_period,
    o.account_id,
    o.customer_id
FROM owed o
LEFT JOIN kept k ON k.bill_id = o.bill_id AND k.issued = o.issued AND k.event_ts = o.event_ts
UNION ALL
SELECT
    s.bill_id,
    s.event_ts,
    FALSE AS firing,
    s.step,
    CAST(NULL AS TIMESTAMP) AT TIME ZONE 'UTC' AS settled_ts,
    s.amount,
    s.bill_period,
    s.account_id,
    s.customer_id
FROM settlements s
WHERE NOT EXISTS (
    SELECT 1
    FROM undone u
    WHERE u.payment_id = s.paid_by AND u.event_ts BETWEEN s.event_ts AND s.event_ts + INTERVAL $within
)
