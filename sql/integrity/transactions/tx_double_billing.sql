/*---
id          = "tx_double_billing"
kind        = "alert"
title       = "Account billed twice for one period"
title_zh    = "同一计费周期重复出账"
severity    = "critical"
entity      = ["bill_id", "earlier_bill_id"]
category    = "business"
standard    = "internal"
owner       = "billing"
description = """
Fires for a bill of an account and meter if another one was issued within `within` before, that included, for the same
`bill_period` or for a time that overlaps (`period_start` to `period_end`, of which the last instant belongs to the next
period), and was not reversed in between (a step that matches `reversal_steps` with its `bill_id`). Of two bills of one
instant the one with the larger number fires. The same bill delivered again is no second bill. Bills without account are
not judged, nor those with neither period; bills without a meter are compared with each other. Not seen: two meters of
one account that measure the same energy.
"""
[params]
process        = "billing"
step           = "bill_issued"
reversal_steps = "^bill_(reversed|cancelled)$"
within         = "62 days"
---*/
WITH bills AS (
    SELECT
        bill_id,
        event_ts,
        account_id,
        bill_period,
        period_start,
        period_end,
        coalesce(meter_id, '') AS meter_id,
        amount,
        kwh,
        customer_id
    FROM business_transactions
    WHERE process_type = $process AND step = $step
        AND bill_id IS NOT NULL AND account_id IS NOT NULL
),
pairs AS (
    SELECT
        b.bill_id,
        b.event_ts,
        a.bill_id AS earlier_bill_id,
        a.event_ts AS earlier_ts,
        b.account_id,
        b.bill_period,
        CASE
            WHEN b.period_start < a.period_end AND a.period_start < b.period_end THEN CAST(
                (
                    extract(epoch FROM least(a.period_end, b.period_end))
                        - extract(epoch FROM greatest(a.period_start, b.period_start))
                ) / 86400 AS DECIMAL(9, 2)
            )
        END AS overlap_days,
        b.meter_id,
        b.amount,
        a.amount AS earlier_amount,
        b.kwh,
        a.kwh AS earlier_kwh,
        b.customer_id
    FROM bills b
    JOIN bills a
        ON a.account_id = b.account_id AND a.meter_id = b.meter_id
        AND a.event_ts BETWEEN b.event_ts - INTERVAL $within AND b.event_ts
    WHERE a.bill_id <> b.bill_id AND (a.event_ts < b.event_ts OR a.bill_id < b.bill_id)
        AND (
            a.bill_period = b.bill_period
            OR (b.period_start < a.period_end AND a.period_start < b.period_end)
        )
)
SELECT
    p.bill_id,
    p.event_ts,
    p.earlier_bill_id,
    p.earlier_ts,
    p.account_id,
    p.bill_period,
    p.overlap_days,
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
