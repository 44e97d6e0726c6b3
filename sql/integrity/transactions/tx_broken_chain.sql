/*---
id          = "tx_broken_chain"
kind        = "alert"
title       = "Account, meter, transformer and feeder of a bill do not hang together"
title_zh    = "户变线关系断链"
severity    = "warning"
entity      = "account_id"
category    = "business"
standard    = "internal"
owner       = "master data"
description = """
Follows each issued bill through the registers as of its time: its account in `customer_accounts`, its meter in `meters`
(that of the account, if the bill names none), its transformer in `transformers`, its feeder in `feeders`; the account
must have this meter, and the meter the feeder of its transformer. `broken_at` says where the chain ends: `account`,
`meter_of_account`, `meter`, `transformer`, `feeder_of_transformer`, `feeder`. Line losses and outages are counted along
this chain, so one wrong link makes two areas wrong. Resolves with a bill whose chain is whole. A register that is empty
breaks all chains. Accounts are looked at with their bills, not each night; an account with several meters has a row in
`customer_accounts` for each. Not seen: a chain that is whole and wrong.
"""
params      = { process = "billing", step = "bill_issued" }
---*/
WITH bills AS (
    SELECT bill_id, event_ts, account_id, meter_id, customer_id
    FROM business_transactions
    WHERE process_type = $process AND step = $step AND account_id IS NOT NULL
),
of_account AS (
    SELECT
        b.bill_id,
        b.event_ts,
        b.account_id,
        b.customer_id,
        coalesce(b.meter_id, max(a.meter_id)) AS meter_id,
        count(a.account_id) AS accounts,
        count(*) FILTER (WHERE a.meter_id = coalesce(b.meter_id, a.meter_id)) AS accounts_of_meter
    FROM bills b
    LEFT JOIN customer_accounts a ON a.account_id = b.account_id
    GROUP BY b.bill_id, b.event_ts, b.account_id, b.customer_id, b.meter_id
),
followed AS (
    SELECT
        o.*,
        m.meter_id IS NOT NULL AS has_meter,
        m.transformer,
        m.feeder,
        t.transformer IS NOT NULL AS has_transformer,
        t.feeder AS transformer_feeder,
        f.feeder IS NOT NULL AS has_feeder
    FROM of_account o
    LEFT JOIN meters m ON m.meter_id = o.meter_id
    LEFT JOIN transformers t ON t.transformer = m.transformer
    LEFT JOIN feeders f ON f.feeder = m.feeder
),
judged AS (
    SELECT
        *,
        CASE
            WHEN accounts = 0 THEN 'account'
            WHEN accounts_of_meter = 0 THEN 'meter_of_account'
            WHEN NOT has_meter THEN 'meter'
            WHEN NOT has_transformer THEN 'transformer'
            WHEN (feeder IS DISTINCT FROM transformer_feeder) THEN 'feeder_of_transformer'
            WHEN NOT has_feeder THEN 'feeder'
        END AS broken_at
    FROM followed
)
SELECT
    account_id,
    event_ts,
    broken_at IS NOT NULL AS firing,
    broken_at,
    meter_id,
    transformer,
    feeder,
    transformer_feeder,
    bill_id,
    customer_id
FROM judged
