/*---
id          = "tx_not_reconnected"
kind        = "alert"
title       = "Customer has paid and is still cut off"
title_zh    = "缴费后超时未复电"
severity    = "critical"
entity      = "account_id"
category    = "business"
standard    = "internal"
owner       = "billing"
description = """
Fires for a payment of an account that was cut off within `cut_within` before it and not reconnected since, if no
reconnection comes within `within` after the payment, that included; told when that time has passed, without any event.
The payment must be at least the `amount` that the disconnection names, and not undone within that time. Resolves when
the account is reconnected. Not seen: a debt that several payments pay together, a reconnection that was booked and not
done (tx_negative_balance knows the relay of prepaid meters), and accounts that were cut off longer ago.
"""
[params]
cut_step    = "disconnected"
back_step   = "reconnected"
pay_step    = "payment_received"
pay_undone  = "^payment_(reversed|refunded|cancelled)$"
within      = "24 hours"
cut_within  = "90 days"
---*/
WITH cuts AS (
    SELECT account_id, event_ts, amount, case_id
    FROM business_transactions
    WHERE step = $cut_step AND account_id IS NOT NULL
),
paid AS (
    SELECT
        p.account_id,
        p.event_ts,
        p.amount,
        p.payment_id,
        p.customer_id,
        p.org_id,
        c.event_ts AS cut_ts,
        c.case_id AS cut_case_id
    FROM business_transactions p
    JOIN cuts c
        ON c.account_id = p.account_id AND c.event_ts BETWEEN p.event_ts - INTERVAL $cut_within AND p.event_ts
    WHERE p.step = $pay_step AND p.amount >= coalesce(c.amount, 0)
)
SELECT
    p.account_id,
    p.event_ts,
    TRUE AS firing,
    p.amount,
    p.payment_id,
    p.cut_ts,
    p.cut_case_id,
    p.customer_id,
    p.org_id
FROM paid p
WHERE NOT EXISTS (
    SELECT 1
    FROM business_transactions b
    WHERE b.step = $back_step AND b.account_id = p.account_id AND b.event_ts >= p.cut_ts
        AND b.event_ts BETWEEN p.event_ts - INTERVAL $cut_within AND p.event_ts + INTERVAL $within
)
    AND NOT EXISTS (
        SELECT 1
        FROM business_transactions u
        WHERE regexp_like(u.step, $pay_undone) AND u.payment_id = p.payment_id
            AND u.event_ts BETWEEN p.event_ts AND p.event_ts + INTERVAL $within
    )
UNION ALL
SELECT
    account_id,
    event_ts,
    FALSE AS firing,
    CAST(NULL AS DECIMAL(18, 2)) AS amount,
    CAST(NULL AS VARCHAR) AS payment_id,
    CAST(NULL AS TIMESTAMP) AT TIME ZONE 'UTC' AS cut_ts,
    CAST(NULL AS VARCHAR) AS cut_case_id,
    customer_id,
    org_id
FROM business_transactions
WHERE step = $back_step AND account_id IS NOT NULL
