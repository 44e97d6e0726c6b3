/*---
id          = "tx_tariff_mapping"
kind        = "alert"
title       = "Tariff on a bill is not one for this customer"
title_zh    = "电价与客户类别不匹配"
severity    = "warning"
entity      = "account_id"
category    = "business"
standard    = "internal"
owner       = "billing"
description = """
Compares the tariff of each issued bill with the class, branch of industry and voltage of its account
(`customer_accounts` as of the bill) by the lines of `tariff_uses`: one must have this tariff and class, a
`industry_prefix` with which the account's code begins (empty: any), and a voltage above `voltage_above_kv` up to
`voltage_upto_kv` (empty: any). A mill under the household tariff pays too little, a household under another too much.
Resolves with a bill under a right tariff. Verdicts that say nothing: `unknown_account`, `unknown_tariff` (no line of
`tariff_uses` has it), `incomplete_account` (no line fits, but one might, if the account said its class, branch or
voltage). Each account is looked at with its bill, not each night: a wrong entry shows with the next bill. Not seen: a
class that is wrong itself, see the rules on loads.
"""
params      = { process = "billing", step = "bill_issued" }
---*/
WITH bills AS (
    SELECT
        b.bill_id,
        b.event_ts,
        b.account_id,
        b.tariff_id,
        b.customer_id,
        a.account_id IS NOT NULL AS is_known,
        a.customer_class,
        a.industry_code,
        a.voltage_kv
    FROM business_transactions b
    LEFT JOIN customer_accounts a ON a.account_id = b.account_id
    WHERE b.process_type = $process AND b.step = $step AND b.account_id IS NOT NULL AND b.tariff_id IS NOT NULL
),
-- `fits` is NULL if that hangs on a value that the account lacks.
lines AS (
    SELECT
        b.*,
        u.tariff_id IS NOT NULL AS has_line,
        u.customer_class = b.customer_class
            AND (coalesce(u.industry_prefix, '') = '' OR starts_with(b.industry_code, u.industry_prefix))
            AND (u.voltage_above_kv IS NULL OR b.voltage_kv > u.voltage_above_kv)
            AND (u.voltage_upto_kv IS NULL OR b.voltage_kv <= u.voltage_upto_kv) AS fits
    FROM bills b
    LEFT JOIN tariff_uses u ON u.tariff_id = b.tariff_id
),
uses AS (
    SELECT
        bill_id,
        event_ts,
        account_id,
        tariff_id,
        customer_id,
        is_known,
        customer_class,
        industry_code,
        voltage_kv,
        CASE
            WHEN NOT is_known THEN 'unknown_account'
            WHEN NOT bool_or(has_line) THEN 'unknown_tariff'
            WHEN coalesce(bool_or(fits), FALSE) THEN 'right'
            WHEN bool_or(fits IS NULL) THEN 'incomplete_account'
            ELSE 'wrong'
        END AS verdict
    FROM lines
    GROUP BY
        bill_id, event_ts, account_id, tariff_id, customer_id, is_known, customer_class, industry_code, voltage_kv
)
SELECT
    account_id,
    event_ts,
    CASE verdict WHEN 'wrong' THEN TRUE WHEN 'right' THEN FALSE END AS firing,
    verdict,
    tariff_id,
    customer_class,
    industry_code,
    voltage_kv,
    bill_id,
    customer_id
FROM uses
