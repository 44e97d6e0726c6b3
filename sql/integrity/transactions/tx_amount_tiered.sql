/*---
id          = "tx_amount_tiered"
kind        = "alert"
title       = "Billed amount differs from energy times the tiers of the month or year"
title_zh    = "阶梯电费核算不符"
severity    = "critical"
entity      = "bill_id"
category    = "business"
unit        = "yuan"
standard    = "internal"
owner       = "billing"
description = """
Recomputes the amount of each bill under a tariff of `tariffs_tiered` in exact decimals, rounded half up to a cent once
at the end; a difference of up to `tolerance_yuan`, that included, is accepted. Tiers begin anew with each bill, or with
each calendar year, if `tier_period` is `year`. `kwh_before` is what the year had used before: the attribute
`year_kwh_before` of the bill if it has one, else the sum of the bills of the account since January, less those that
were reversed, if they are as many as the period says (`months_per_bill`). If prices or tiers change within the period
(`period_start` to `period_end`), the energy is split at that instant, by the attribute `kwh_before_change` of the bill
if it has one, else by time, and tiers count on. A bill without a period is priced as of its own time. Verdict
`insufficient_data` (says nothing): bills of the year are missing or came twice, the tariff changed more than once
within the period, or a tier is missing or ends before the first. Not judged: bills without energy, amount or a known
tariff. A corrected bill under the same number resolves. Not seen: whether the account belongs under this tariff
(tx_tariff_mapping); larger tiers of large households are a tariff of their own.
"""
[params]
tolerance_yuan  = 0.01
process         = "billing"
step            = "bill_issued"
reversal_steps  = "^bill_(reversed|cancelled)$"
months_per_bill = 1
---*/
WITH booked AS (
    SELECT
        *,
        substr(bill_period, 1, 4) AS bill_year,
        CASE WHEN step = $step THEN 1 ELSE -1 END AS counts,
        CASE WHEN step = $step THEN kwh ELSE -abs(kwh) END AS signed_kwh,
        coalesce(period_start, event_ts) AS from_ts,
        coalesce(period_end - INTERVAL '1 microsecond', event_ts) AS to_ts
    FROM business_transactions
    WHERE process_type = $process AND (step = $step OR regexp_like(step, $reversal_steps))
        AND bill_id IS NOT NULL AND kwh IS NOT NULL
),
cumulated AS (
    SELECT
        *,
        TRY_CAST(attrs['year_kwh_before'] AS DECIMAL(18, 4)) AS stated_kwh,
        sum(signed_kwh) OVER w - signed_kwh AS booked_kwh,
        sum(counts) OVER w - counts AS booked_bills
    FROM booked
    WINDOW w AS (PARTITION BY account_id, bill_year ORDER BY event_ts RANGE INTERVAL '400 days' PRECEDING)
),
priced AS (
    SELECT
        b.*,
        n.tier_period,
        CASE
            WHEN n.tier_period = 'month' THEN CAST(0 AS DECIMAL(18, 4))
            WHEN b.stated_kwh IS NOT NULL THEN b.stated_kwh
            WHEN b.account_id IS NOT NULL
                AND b.booked_bills = TRY_CAST(substr(b.bill_period, 6, 2) AS BIGINT) / $months_per_bill - 1
                THEN TRY_CAST(b.booked_kwh AS DECIMAL(18, 4))
        END AS kwh_before,
        CASE
            WHEN (o.valid_from IS NOT DISTINCT FROM n.valid_from) THEN b.kwh
            WHEN o.valid_to = n.valid_from THEN coalesce(
                TRY_CAST(b.attrs['kwh_before_change'] AS DECIMAL(18, 4)),
                CAST(
                    b.kwh * CAST(extract(epoch FROM n.valid_from) - extract(epoch FROM b.period_start) AS DECIMAL(12, 0))
                        / nullif(
                            CAST(extract(epoch FROM b.period_end) - extract(epoch FROM b.period_start) AS DECIMAL(12, 0)), 0
                        )
                    AS DECIMAL(18, 4)
                )
            )
        END AS kwh_old,
        CASE WHEN o.valid_to <= b.to_ts THEN o.valid_to END AS changed_ts,
        o.tier1_kwh AS old_tier1,
        o.tier2_kwh AS old_tier2,
        o.price1 AS old_price1,
        o.price2 AS old_price2,
        o.price3 AS old_price3,
        n.tier1_kwh,
        n.tier2_kwh,
        n.price1,
        n.price2,
        n.price3
    FROM cumulated b
    JOIN tariffs_tiered o
        ON o.tariff_id = b.tariff_id
        AND (o.valid_from IS NULL OR o.valid_from <= b.from_ts) AND (o.valid_to IS NULL OR b.from_ts < o.valid_to)
    JOIN tariffs_tiered n
        ON n.tariff_id = b.tariff_id
        AND (n.valid_from IS NULL OR n.valid_from <= b.to_ts) AND (n.valid_to IS NULL OR b.to_ts < n.valid_to)
    WHERE b.step = $step AND b.amount IS NOT NULL
),
-- The tiers are paid between three points: before the bill, at the change of the tariff, after the bill.
points AS (
    SELECT *, kwh_before + kwh_old AS kwh_change, kwh_before + kwh AS kwh_after
    FROM priced
),
charged AS (
    SELECT
        *,
        CASE
            WHEN kwh_before IS NOT NULL AND kwh_old IS NOT NULL
                AND old_tier1 <= old_tier2 AND tier1_kwh <= tier2_kwh THEN CAST(
                (least(kwh_change, old_tier1) - least(kwh_before, old_tier1)) * old_price1
                    + (
                        greatest(least(kwh_change, old_tier2), old_tier1)
                            - greatest(least(kwh_before, old_tier2), old_tier1)
                    ) * old_price2
                    + (greatest(kwh_change, old_tier2) - greatest(kwh_before, old_tier2)) * old_price3
                    + (least(kwh_after, tier1_kwh) - least(kwh_change, tier1_kwh)) * price1
                    + (
                        greatest(least(kwh_after, tier2_kwh), tier1_kwh)
                            - greatest(least(kwh_change, tier2_kwh), tier1_kwh)
                    ) * price2
                    + (greatest(kwh_after, tier2_kwh) - greatest(kwh_change, tier2_kwh)) * price3
                AS DECIMAL(18, 2)
            )
        END AS expected_amount
    FROM points
)
SELECT
    bill_id,
    event_ts,
    abs(amount - expected_amount) > $tolerance_yuan AS firing,
    CASE
        WHEN expected_amount IS NULL THEN 'insufficient_data'
        WHEN abs(amount - expected_amount) > $tolerance_yuan THEN 'wrong'
        ELSE 'right'
    END AS verdict,
    amount AS measured,
    expected_amount - $tolerance_yuan AS limit_low,
    expected_amount + $tolerance_yuan AS limit_high,
    'yuan' AS unit,
    amount - expected_amount AS difference_yuan,
    expected_amount,
    kwh,
    kwh_before,
    CASE
        WHEN tier_period = 'month' THEN 'month'
        WHEN kwh_before IS NULL THEN 'unknown'
        WHEN stated_kwh IS NOT NULL THEN 'stated_on_bill'
        ELSE 'bills_of_year'
    END AS kwh_before_basis,
    changed_ts,
    CASE WHEN changed_ts IS NOT NULL THEN kwh_old END AS kwh_before_change,
    bill_period,
    tariff_id,
    account_id,
    customer_id
FROM charged
