/*---
id          = "rp_read_to_cash"
title       = "Of the accounts that should be billed, how many were read, billed and have paid, and how old is what is owed?"
title_zh    = "抄核收漏斗与欠费账龄"
description = """
For the head of revenue. One row per billing period and organisation, and one of `all` first. `accounts` are the registered settlement
accounts (`customer_accounts`) whose contract covered the last day of the period; then follow those read (`read_done`), billed and paid in full, and each
as a share of the step before. Money: `billed_yuan` less `reversed_yuan`, `paid_yuan` (less refunds and reversals of payments), `open_yuan`
what is left of the single bills; what was paid beyond a bill is in `overpaid_yuan` and does not pay another one.
The open money is split by the age of its bill at the newest event of the archive (`as_of`): up to 30, 60, 90 days, and above.
The organisation is that of the transactions of the account; accounts without any are under `unknown`, and so appear as not read. Bills
without `bill_id` or `bill_period`, and payments that name no bill, are not matched; a payment of an unknown bill is tx_orphan_payment. A
transaction that is delivered twice counts twice. It cannot say why somebody does not pay, nor does it know what was owed before the
archive began.
"""
owner       = "billing"
duckdb      = true
---*/
WITH as_of AS (
    SELECT max(event_ts) AS as_of FROM business_transactions
),
bills AS (
    SELECT
        bill_id,
        max(bill_period) AS bill_period,
        max(account_id) AS account_id,
        max(org_id) AS org_id,
        min(CASE WHEN step = 'bill_issued' THEN event_ts END) AS issued_at,
        coalesce(sum(CASE WHEN step = 'bill_issued' THEN amount END), 0) AS billed,
        coalesce(sum(CASE WHEN step IN ('bill_reversed', 'bill_cancelled') THEN abs(amount) END), 0) AS reversed,
        coalesce(sum(CASE WHEN step = 'payment_received' THEN amount END), 0)
            - coalesce(sum(CASE WHEN step IN ('payment_reversed', 'payment_refunded', 'payment_cancelled') THEN abs(amount) END), 0) AS paid
    FROM business_transactions
    WHERE bill_id IS NOT NULL
    GROUP BY bill_id
),
open_bills AS (
    SELECT
        b.*,
        b.billed - b.reversed - b.paid AS balance,
        (extract(epoch FROM a.as_of) - extract(epoch FROM b.issued_at)) / 86400 AS age_days
    FROM bills b
    CROSS JOIN as_of a
    WHERE b.issued_at IS NOT NULL AND b.bill_period IS NOT NULL
),
accounts_of_bills AS (
    SELECT
        bill_period,
        account_id,
        max(org_id) AS org_id,
        count(*) AS bills,
        sum(billed) AS billed,
        sum(reversed) AS reversed,
        sum(paid) AS paid,
        sum(CASE WHEN balance > 0 THEN balance ELSE 0 END) AS still_owed,
        sum(CASE WHEN balance < 0 THEN -balance ELSE 0 END) AS overpaid,
        sum(CASE WHEN balance > 0 AND age_days <= 30 THEN balance ELSE 0 END) AS owed_30,
        sum(CASE WHEN balance > 0 AND age_days > 30 AND age_days <= 60 THEN balance ELSE 0 END) AS owed_60,
        sum(CASE WHEN balance > 0 AND age_days > 60 AND age_days <= 90 THEN balance ELSE 0 END) AS owed_90,
        sum(CASE WHEN balance > 0 AND age_days > 90 THEN balance ELSE 0 END) AS owed_older
    FROM open_bills
    GROUP BY bill_period, account_id
),
reads AS (
    SELECT bill_period, account_id, max(org_id) AS org_id
    FROM business_transactions
    WHERE process_type = 'meter_read' AND step = 'read_done' AND bill_period IS NOT NULL AND account_id IS NOT NULL
    GROUP BY bill_period, account_id
),
homes AS (
    SELECT account_id, max(org_id) AS org_id FROM business_transactions WHERE account_id IS NOT NULL GROUP BY account_id
),
periods AS (
    SELECT bill_period, CAST(TRY_CAST(concat(bill_period, '-01') AS DATE) + INTERVAL '1 month' AS DATE) AS next_day
    FROM (SELECT DISTINCT bill_period FROM business_transactions WHERE bill_period IS NOT NULL) p
),
registered AS (
    SELECT DISTINCT p.bill_period, c.account_id
    FROM periods p
    JOIN customer_accounts c
        ON (c.valid_from IS NULL OR CAST(c.valid_from AT TIME ZONE 'Asia/Shanghai' AS DATE) < p.next_day)
        AND (c.valid_to IS NULL OR CAST(c.valid_to AT TIME ZONE 'Asia/Shanghai' AS DATE) >= p.next_day)
),
funnel AS (
    SELECT
        k.bill_period,
        coalesce(b.org_id, r.org_id, h.org_id, 'unknown') AS org_id,
        g.account_id AS registered_id,
        r.account_id AS read_id,
        b.account_id AS billed_id,
        b.bills,
        b.billed,
        b.reversed,
        b.paid,
        b.still_owed,
        b.overpaid,
        b.owed_30,
        b.owed_60,
        b.owed_90,
        b.owed_older
    FROM (
        SELECT bill_period, account_id FROM registered
        UNION
        SELECT bill_period, account_id FROM accounts_of_bills
        UNION
        SELECT bill_period, account_id FROM reads
    ) k
    LEFT JOIN registered g ON g.bill_period = k.bill_period AND g.account_id = k.account_id
    LEFT JOIN accounts_of_bills b ON b.bill_period = k.bill_period AND b.account_id = k.account_id
    LEFT JOIN reads r ON r.bill_period = k.bill_period AND r.account_id = k.account_id
    LEFT JOIN homes h ON h.account_id = k.account_id
),
sums AS (
    SELECT
        f.bill_period,
        CASE l.level WHEN 'all' THEN 'all' ELSE f.org_id END AS org_id,
        count(f.registered_id) AS accounts,
        count(f.read_id) AS accounts_read,
        count(f.billed_id) AS accounts_billed,
        count(*) FILTER (WHERE f.billed_id IS NOT NULL AND f.still_owed = 0) AS accounts_settled,
        sum(f.bills) AS bills,
        sum(f.billed) AS billed_yuan,
        sum(f.reversed) AS reversed_yuan,
        sum(f.paid) AS paid_yuan,
        sum(f.still_owed) AS open_yuan,
        sum(f.overpaid) AS overpaid_yuan,
        sum(f.owed_30) AS open_to_30_days,
        sum(f.owed_60) AS open_to_60_days,
        sum(f.owed_90) AS open_to_90_days,
        sum(f.owed_older) AS open_above_90_days
    FROM funnel f
    CROSS JOIN (VALUES ('all'), ('organisation')) AS l (level)
    GROUP BY 1, 2
)
SELECT
    s.bill_period,
    s.org_id,
    s.accounts,
    s.accounts_read,
    CAST(CAST(s.accounts_read AS DECIMAL(18, 6)) * 100 / nullif(s.accounts, 0) AS DECIMAL(9, 2)) AS read_pct,
    s.accounts_billed,
    CAST(CAST(s.accounts_billed AS DECIMAL(18, 6)) * 100 / nullif(s.accounts_read, 0) AS DECIMAL(9, 2)) AS billed_pct,
    s.accounts_settled,
    CAST(CAST(s.accounts_settled AS DECIMAL(18, 6)) * 100 / nullif(s.accounts_billed, 0) AS DECIMAL(9, 2)) AS settled_pct,
    s.bills,
    s.billed_yuan,
    s.reversed_yuan,
    s.paid_yuan,
    s.open_yuan,
    CAST(CAST(s.paid_yuan AS DECIMAL(24, 6)) * 100 / nullif(s.billed_yuan - s.reversed_yuan, 0) AS DECIMAL(9, 2)) AS collected_pct,
    s.overpaid_yuan,
    s.open_to_30_days,
    s.open_to_60_days,
    s.open_to_90_days,
    s.open_above_90_days,
    a.as_of
FROM sums s
CROSS JOIN as_of a
ORDER BY s.bill_period DESC, CASE s.org_id WHEN 'all' THEN 0 ELSE 1 END, s.org_id
