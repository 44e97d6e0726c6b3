/*---
id          = "tx_amount_tou"
kind        = "alert"
title       = "Billed amount differs from the energies of the tariff periods times their prices"
title_zh    = "分时电费核算不符"
severity    = "critical"
entity      = "bill_id"
category    = "business"
unit        = "yuan"
standard    = "internal"
owner       = "billing"
description = """
Recomputes the amount of each bill under a tariff of `tariffs_tou` from its sharp, peak, flat and valley energies, in
exact decimals, rounded half up to a cent once at the end; a difference of up to `tolerance_yuan`, that included, is
accepted. If prices change within the period (`period_start` to `period_end`), each price is the mean of old and new by
time. A bill without a period is priced as of its own time. An energy that is missing counts as 0, as not every tariff
has all four; verdict `insufficient_data` (says nothing) if one has no price, or the tariff changed more than once within
the period. Not judged: bills without any of the four energies, without amount or a known tariff. A corrected bill under
the same number resolves. Not seen: whether the energies are those of the meter (tx_tou_sum, tx_bill_readings).
"""
params      = { tolerance_yuan = 0.01, process = "billing", step = "bill_issued" }
---*/
WITH bills AS (
    SELECT
        *,
        coalesce(period_start, event_ts) AS from_ts,
        coalesce(period_end - INTERVAL '1 microsecond', event_ts) AS to_ts
    FROM business_transactions
    WHERE process_type = $process AND step = $step AND bill_id IS NOT NULL AND amount IS NOT NULL
        AND coalesce(t1_kwh, t2_kwh, t3_kwh, t4_kwh) IS NOT NULL
),
priced AS (
    SELECT
        b.*,
        CASE WHEN o.valid_to <= b.to_ts THEN o.valid_to END AS changed_ts,
        -- Seconds under the old prices and under the new ones; a tariff without a change is all new.
        CASE
            WHEN (o.valid_from IS NOT DISTINCT FROM n.valid_from) THEN CAST(0 AS DECIMAL(12, 0))
            WHEN o.valid_to = n.valid_from
                THEN CAST(extract(epoch FROM n.valid_from) - extract(epoch FROM b.period_start) AS DECIMAL(12, 0))
        END AS old_s,
        CASE
            WHEN (o.valid_from IS NOT DISTINCT FROM n.valid_from) THEN CAST(1 AS DECIMAL(12, 0))
            ELSE CAST(extract(epoch FROM b.period_end) - extract(epoch FROM n.valid_from) AS DECIMAL(12, 0))
        END AS new_s,
        coalesce(b.t1_kwh, 0) * CASE WHEN b.t1_kwh <> 0 THEN o.price_t1 ELSE 0 END
            + coalesce(b.t2_kwh, 0) * CASE WHEN b.t2_kwh <> 0 THEN o.price_t2 ELSE 0 END
            + coalesce(b.t3_kwh, 0) * CASE WHEN b.t3_kwh <> 0 THEN o.price_t3 ELSE 0 END
            + coalesce(b.t4_kwh, 0) * CASE WHEN b.t4_kwh <> 0 THEN o.price_t4 ELSE 0 END AS at_old_prices,
        coalesce(b.t1_kwh, 0) * CASE WHEN b.t1_kwh <> 0 THEN n.price_t1 ELSE 0 END
            + coalesce(b.t2_kwh, 0) * CASE WHEN b.t2_kwh <> 0 THEN n.price_t2 ELSE 0 END
            + coalesce(b.t3_kwh, 0) * CASE WHEN b.t3_kwh <> 0 THEN n.price_t3 ELSE 0 END
            + coalesce(b.t4_kwh, 0) * CASE WHEN b.t4_kwh <> 0 THEN n.price_t4 ELSE 0 END AS at_new_prices
    FROM bills b
    JOIN tariffs_tou o
        ON o.tariff_id = b.tariff_id
        AND (o.valid_from IS NULL OR o.valid_from <= b.from_ts) AND (o.valid_to IS NULL OR b.from_ts < o.valid_to)
    JOIN tariffs_tou n
        ON n.tariff_id = b.tariff_id
        AND (n.valid_from IS NULL OR n.valid_from <= b.to_ts) AND (n.valid_to IS NULL OR b.to_ts < n.valid_to)
),
charged AS (
    SELECT
        *,
        CAST((at_old_prices * old_s + at_new_prices * new_s) / nullif(old_s + new_s, 0) AS DECIMAL(18, 2)) AS expected_amount
    FROM priced
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
    t1_kwh,
    t2_kwh,
    t3_kwh,
    t4_kwh,
    changed_ts,
    tariff_id,
    account_id,
    customer_id
FROM charged
