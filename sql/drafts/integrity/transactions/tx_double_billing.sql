/*---
id          = "tx_double_billing"
kind        = "alert"
title       = "Account billed twice for one period"
severity    = "critical"
entity      = ["bill_id", "earlier_bill_id"]
category    = "business"
standard    = "internal"
owner       = "billing"
description = """
Fires for a bill of an account, period and meter for which another bill was issued within `within` before, that
included, if that one was not reversed in between (a step that matches `reversal_steps` with its `bill_id`). Of two
bills of one instant the one with the larger number fires. The same bill delivered again is no second bill. Bills
without account or period are not judged; bills without a meter are compared with each other. Not seen: periods that
overlap under different names.
"""
[params]
process        = "billing"
step           = "bill_issued"
reversal_steps = "^bill_(reversed|cancelled)$"
within         = "62 days"
---*/
WITH bills AS (
    SELECT bill_id, event_ts, account_id, bill_period, coalesce(meter_id, '') AS meter_id, amount, kwh, customer_id
    FROM business_transactions
    WHERE process_type = $process AND step = $step
        AND bill_id IS NOT NULL AND account_id IS NOT NULL AND bill_period IS NOT NULL
),
pairs AS (
    SELECT
        b.bill_id,
        b.event_ts,
        a.bill_id AS earlier_bill_id,
        a.event_ts AS earlier_ts,
        b.account_id,
        b.bill_period,
        b.meter_id,
        b.amount,
        a.amount AS earlier_amount,
        b.kwh,
        a.kwh AS earlier_kwh,
        b.customer_id
    FROM bills b
    JOIN bills a
        ON a.account_id = b.account_id AND a.bill_period = b.bill_period AND a.meter_id = b.meter_id
        AND a.event_ts BETWEEN b.event_ts - INTERVAL $within AND b.event_ts
    WHERE a.bill_id <> b.bill_id AND (a.event_ts < b.event_ts OR a.bill_id < b.bill_id)
)
SELECT
    p.bill_id,
    p.event_ts,
    p.earlier_bill_id,
    p.earlier_ts,
    p.account_id,
    p.bill_period,
    nullif(p.meter_id, '') AS meter_id,
    p.amount,
    p.earlier_amount,
    p.kwh,
    p.earlier_kwh,
    p.customer_id
FROM pairs p
WHERE NOT EXISTS (
    SELECT 1
    FROM business_transactions r
    WHERE r.bill_id = p.earlier_bill_id AND regexp_like(r.step, $reversal_steps)
        AND r.event_ts BETWEEN p.event_ts - INTERVAL $within AND p.event_ts
        AND r.event_ts >= p.earlier_ts
)
