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
delivered twice under one `payment_id` is one payment. Two payments on both sides of a window's border are not seen.
"""
params      = { process = "payment", step = "payment_received" }
---*/
SELECT
    bill_id,
    window_start,
    window_end,
    payments AS measured,
    1 AS limit_high,
    'payments' AS unit,
    first_ts,
    last_ts,
    amount_max,
    customer_id
FROM (
    SELECT
        bill_id,
        window_start,
        window_end,
        count(DISTINCT payment_id) AS payments,
        min(event_ts) AS first_ts,
        max(event_ts) AS last_ts,
        max(amount) AS amount_max,
        min(customer_id) AS customer_id
    FROM TUMBLE(business_transactions, event_ts, INTERVAL '7 days')
    WHERE process_type = $process AND step = $step AND bill_id IS NOT NULL
    GROUP BY bill_id, window_start, window_end
) p
WHERE payments > 1
