/*---
id          = "tx_account_without_bill"
kind        = "alert"
title       = "Account with a contract got no bill for a whole cycle"
title_zh    = "在用客户整个周期未出账"
severity    = "warning"
entity      = "account_id"
category    = "business"
unit        = "days"
standard    = "internal"
owner       = "billing"
description = """
At the end of each calendar month (Asia/Shanghai) looks at each account of `customer_accounts`, also those of which
nothing was heard, and fires if no bill was issued to it within its `cycle_days` before. Resolves at the end of a month
with a bill within them. A month in which nothing at all happened in the stream is not looked at. Not judged: accounts
whose row is younger than their cycle, that ended within it, or have no `cycle_days`. Cycles of more than `longest` are
not seen whole: lengthen it. Reversed bills count as bills.
"""
params      = { process = "billing", step = "bill_issued", longest = "190 days" }
---*/
WITH bills AS (
    SELECT account_id, event_ts, bill_id, customer_id
    FROM business_transactions
    WHERE process_type = $process AND step = $step AND account_id IS NOT NULL
),
months AS (
    SELECT DISTINCT window_start, window_end
    FROM TUMBLE(business_transactions, event_ts, INTERVAL '1 month', 'Asia/Shanghai')
),
owed AS (
    SELECT
        a.account_id,
        m.window_start,
        m.window_end,
        m.window_end - CAST(a.cycle_days || ' days' AS INTERVAL) AS since_ts,
        a.cycle_days,
        a.customer_id,
        a.meter_id
    FROM months m
    JOIN customer_accounts a
        ON a.cycle_days > 0
        AND (a.valid_from IS NULL OR a.valid_from <= m.window_end - CAST(a.cycle_days || ' days' AS INTERVAL))
        AND (a.valid_to IS NULL OR m.window_end <= a.valid_to)
),
billed AS (
    SELECT
        account_id,
        window_start,
        window_end,
        count(*) AS bills_of_month,
        max(event_ts) AS last_ts,
        max(customer_id) AS customer_id
    FROM TUMBLE(bills, event_ts, INTERVAL '1 month', 'Asia/Shanghai')
    GROUP BY account_id, window_start, window_end
)
SELECT
    o.account_id,
    o.window_start,
    o.window_end,
    TRUE AS firing,
    o.cycle_days AS limit_high,
    'days' AS unit,
    o.since_ts,
    CAST(NULL AS BIGINT) AS bills_of_month,
    o.customer_id,
    o.meter_id
FROM owed o
WHERE NOT EXISTS (
    SELECT 1
    FROM bills b
    WHERE b.account_id = o.account_id AND b.event_ts >= o.since_ts
        AND b.event_ts >= o.window_end - INTERVAL $longest AND b.event_ts < o.window_end
)
UNION ALL
SELECT
    b.account_id,
    b.window_start,
    b.window_end,
    FALSE AS firing,
    CAST(NULL AS BIGINT) AS limit_high,
    'days' AS unit,
    CAST(NULL AS TIMESTAMP) AT TIME ZONE 'UTC' AS since_ts,
    b.bills_of_month,
    b.customer_id,
    CAST(NULL AS VARCHAR) AS meter_id
FROM billed b
WHERE NOT EXISTS (
    SELECT 1
    FROM customer_accounts a
    WHERE a.account_id = b.account_id AND a.cycle_days > 0
        AND b.last_ts < b.window_end - CAST(a.cycle_days || ' days' AS INTERVAL)
        AND (a.valid_from IS NULL OR a.valid_from <= b.window_end - CAST(a.cycle_days || ' days' AS INTERVAL))
        AND (a.valid_to IS NULL OR b.window_end <= a.valid_to)
)
