/*---
id          = "tx_double_payment"
kind        = "alert"
title       = "Bill paid more than once within a week"
severity    = "critical"
entity      = "bill_id"
category    = "business"
unit        = "payments"
standard    = "internal"
owner       = "billing"
description = """
Counts the distinct payments of a bill in windows of 7 days (aligned to 1970-01-01 UTC, a Thursday); a payment that is
delivered twice under one `payment_id` is one payment, and one that is undone within the window (a step that matches
`pay_undone` with its `payment_id`) is none. Not counted: payments without `payment_id` or bill. Two payments on both
sides of a window's border are not seen.
"""
[params]
process    = "payment"
step       = "payment_received"
pay_undone = "^payment_(reversed|refunded|cancelled)$"
---*/
WITH payments AS (
    SELECT
        *,
        process_type = $process AND step = $step AS pays,
        bool_or(regexp_like(step, $pay_undone)) OVER (PARTITION BY payment_id, window_start) AS is_undone
    FROM TUMBLE(business_transactions, event_ts, INTERVAL '7 days')
    WHERE (process_type = $process AND step = $step) OR regexp_like(step, $pay_undone)
)
SELECT
    bill_id,
    window_start,
    window_end,
    count(DISTINCT payment_id) AS measured,
    1 AS limit_high,
    'payments' AS unit,
    min(event_ts) AS first_ts,
    max(event_ts) AS last_ts,
    max(amount) AS amount_max,
    min(customer_id) AS customer_id
FROM payments
WHERE pays AND NOT is_undone AND bill_id IS NOT NULL
GROUP BY bill_id, window_start, window_end
HAVING count(DISTINCT payment_id) > 1
