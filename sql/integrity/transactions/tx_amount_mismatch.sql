/*---
id          = "tx_amount_mismatch"
kind        = "alert"
title       = "Billed amount differs from energy times tariff"
severity    = "critical"
entity      = "bill_id"
category    = "business"
unit        = "yuan"
standard    = "internal"
owner       = "billing"
description = """
Recomputes the amount of each issued bill from its energy and the monthly tiers of its tariff as of the bill's time, in
exact decimals, rounded half up to a cent once at the end. A difference of up to `tolerance_yuan`, that included, is
accepted. Not judged: bills without energy, amount or a known tariff, of less than no energy, or under a tariff whose
second tier ends before the first. An occurrence: it does not resolve. Tiers of a year, prices that change within a
period, and corrected bills are the business of tx_amount_tiered, which needs a table of its own.
"""
params      = { tolerance_yuan = 0.01, process = "billing", step = "bill_issued" }
---*/
SELECT
    bill_id,
    event_ts,
    amount AS measured,
    expected_amount - $tolerance_yuan AS limit_low,
    expected_amount + $tolerance_yuan AS limit_high,
    'yuan' AS unit,
    amount - expected_amount AS difference_yuan,
    expected_amount,
    kwh,
    tariff_id,
    customer_id
FROM (
    SELECT
        b.*,
        CASE
            WHEN t.tier1_kwh <= t.tier2_kwh
                THEN tiered_amount(0, b.kwh, [t.tier1_kwh, t.tier2_kwh], [t.price1, t.price2, t.price3])
        END AS expected_amount
    FROM business_transactions b
    JOIN tariffs t ON t.tariff_id = b.tariff_id
    WHERE b.process_type = $process AND b.step = $step AND b.bill_id IS NOT NULL
) e
WHERE abs(amount - expected_amount) > $tolerance_yuan
