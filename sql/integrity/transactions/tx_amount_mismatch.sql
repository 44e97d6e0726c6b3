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
accepted. Bills without energy, amount or a known tariff are not judged.
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
        bill_id,
        event_ts,
        amount,
        kwh,
        tariff_id,
        customer_id,
        CAST(
            least(kwh, tier1_kwh) * price1
                + greatest(least(kwh, tier2_kwh) - tier1_kwh, 0) * price2
                + greatest(kwh - tier2_kwh, 0) * price3
            AS DECIMAL(18, 2)
        ) AS expected_amount
    FROM (
        SELECT
            b.bill_id,
            b.event_ts,
            b.amount,
            b.kwh,
            b.tariff_id,
            b.customer_id,
            CAST(t.tier1_kwh AS DECIMAL(12, 4)) AS tier1_kwh,
            CAST(t.tier2_kwh AS DECIMAL(12, 4)) AS tier2_kwh,
            CAST(t.price1 AS DECIMAL(9, 4)) AS price1,
            CAST(t.price2 AS DECIMAL(9, 4)) AS price2,
            CAST(t.price3 AS DECIMAL(9, 4)) AS price3
        FROM business_transactions b
        JOIN tariffs t ON t.tariff_id = b.tariff_id
        WHERE b.process_type = $process AND b.step = $step
            AND b.bill_id IS NOT NULL AND b.amount IS NOT NULL AND b.kwh IS NOT NULL
    ) p
) e
WHERE abs(amount - expected_amount) > $tolerance_yuan
