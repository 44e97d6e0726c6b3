/*---
id          = "rp_billing_accuracy"
title       = "How many bills are wrong, by how much money, and for what cause?"
title_zh    = "电费核算差错率与差错金额(按原因)"
description = """
For the head of billing and revenue audit. One row per month and cause, and one of `all` first. A cause is a rule of the folder of
transactions that told of a bill; the month is that of the bill (of the reading, for readings without a bill). `cases` are the bills it
told of, `still_open` those that were not put right since (rules that tell single occurrences stay open for ever). `too_much_yuan` and
`too_little_yuan` are the differences to the recomputed amounts; of a double bill its whole amount is too much; NULL where a rule gives no money.
`amount_yuan` is what the bills of these cases say. In the row `all` each bill counts once, and `accuracy_pct` is the share of
the bills of the month of which no rule told, `bills` how many were issued and `billed_yuan` their sum.
Only causes whose rules run in the job can be found: `accuracy_pct` is no better than they are. Bills without energy or a known tariff are not
recomputed, so check the share of bills that could be. The money of two causes of one bill is in both rows, and in `all` as well.
"""
owner       = "billing"
duckdb      = true
---*/
WITH bills AS (
    SELECT
        bill_id,
        CAST(date_trunc('month', event_ts AT TIME ZONE 'Asia/Shanghai') AS DATE) AS local_month,
        amount,
        row_number() OVER (PARTITION BY bill_id ORDER BY event_ts DESC, txn_id DESC) AS n
    FROM business_transactions
    WHERE process_type = 'billing' AND step = 'bill_issued' AND bill_id IS NOT NULL
),
issued AS (
    SELECT local_month, count(*) AS bills, sum(amount) AS billed_yuan
    FROM bills
    WHERE n = 1
    GROUP BY local_month
),
numbered AS (
    SELECT *, sum(CASE status WHEN 'open' THEN 1 ELSE 0 END) OVER (PARTITION BY fingerprint ORDER BY revision) AS opening
    FROM alerts
    WHERE rule_id IN (
        'tx_amount_mismatch', 'tx_amount_tiered', 'tx_amount_tou', 'tx_amount_two_part', 'tx_bill_readings', 'tx_broken_chain',
        'tx_double_billing', 'tx_read_without_bill', 'tx_register_mismatch', 'tx_tou_sum', 'tx_zero_bill', 'tx_zero_bill_readings'
    )
),
-- The last record of each opening says how it ended, the first one what was wrong: that which resolves it holds the good values.
records AS (
    SELECT
        *,
        row_number() OVER (PARTITION BY fingerprint, opening ORDER BY revision DESC) AS n,
        first_value(measured) OVER w AS wrong_measured,
        first_value(limit_low) OVER w AS wrong_low,
        first_value(limit_high) OVER w AS wrong_high
    FROM numbered
    WINDOW w AS (PARTITION BY fingerprint, opening ORDER BY revision ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
),
cases AS (
    SELECT
        r.rule_id,
        r.entity_id,
        CAST(date_trunc('month', r.first_seen_ts AT TIME ZONE 'Asia/Shanghai') AS DATE) AS local_month,
        b.bill_id,
        b.amount,
        r.status <> 'resolved' AS still_open,
        CASE
            WHEN r.rule_id = 'tx_double_billing' THEN b.amount
            WHEN r.unit = 'yuan' THEN
                CAST(r.wrong_measured AS DECIMAL(18, 2)) - CAST((r.wrong_low + r.wrong_high) / 2 AS DECIMAL(18, 2))
        END AS difference_yuan
    FROM records r
    LEFT JOIN bills b ON b.bill_id = split_part(r.entity_id, '|', 1) AND b.n = 1
    WHERE r.n = 1
),
causes AS (
    SELECT
        local_month,
        rule_id AS cause,
        count(DISTINCT entity_id) AS cases,
        count(DISTINCT CASE WHEN still_open THEN entity_id END) AS still_open,
        sum(amount) AS amount_yuan,
        sum(CASE WHEN difference_yuan > 0 THEN difference_yuan WHEN difference_yuan IS NOT NULL THEN 0 END) AS too_much_yuan,
        sum(CASE WHEN difference_yuan < 0 THEN -difference_yuan WHEN difference_yuan IS NOT NULL THEN 0 END) AS too_little_yuan,
        CAST(NULL AS BIGINT) AS wrong_bills
    FROM cases
    GROUP BY local_month, rule_id
    UNION ALL
    SELECT
        i.local_month,
        'all',
        count(DISTINCT coalesce(c.bill_id, c.entity_id)),
        count(DISTINCT CASE WHEN c.still_open THEN coalesce(c.bill_id, c.entity_id) END),
        CAST(NULL AS DECIMAL(38, 2)),
        sum(CASE WHEN c.difference_yuan > 0 THEN c.difference_yuan WHEN c.difference_yuan IS NOT NULL THEN 0 END),
        sum(CASE WHEN c.difference_yuan < 0 THEN -c.difference_yuan WHEN c.difference_yuan IS NOT NULL THEN 0 END),
        count(DISTINCT c.bill_id)
    FROM issued i
    LEFT JOIN cases c ON c.local_month = i.local_month
    GROUP BY i.local_month
)
SELECT
    c.local_month,
    c.cause,
    c.cases,
    c.still_open,
    c.amount_yuan,
    c.too_much_yuan,
    c.too_little_yuan,
    CASE WHEN c.cause = 'all' THEN i.bills END AS bills,
    CASE WHEN c.cause = 'all' THEN i.billed_yuan END AS billed_yuan,
    CASE WHEN c.cause = 'all' THEN CAST(CAST(i.bills - c.wrong_bills AS DECIMAL(18, 6)) * 100 / i.bills AS DECIMAL(9, 4)) END AS accuracy_pct
FROM causes c
LEFT JOIN issued i ON i.local_month = c.local_month
ORDER BY c.local_month DESC, CASE c.cause WHEN 'all' THEN 0 ELSE 1 END, c.cases DESC, c.cause
