/*---
id          = "tx_register_mismatch"
kind        = "alert"
title       = "Billed energy differs from the register readings on the bill"
title_zh    = "账单电量与示数差不符"
severity    = "critical"
entity      = "bill_id"
category    = "business"
unit        = "kWh"
standard    = "internal"
owner       = "billing"
description = """
Compares the energy of an issued bill with the difference of its two register readings, times the attribute `multiplier`
of the bill if it has one, else 1. Fires if they differ by more than `tolerance_kwh`, or if the register went backwards
without rolling over at `digits` digits. Bills without energy or a reading are not judged, nor those whose `multiplier`
is no number. A corrected bill under the same number resolves. Bills over transformers whose multiplier is not among the
attributes fire wrongly, as do those in which the meter was changed or losses are added. Not seen: whether the readings
are those of the meter.
"""
params      = { process = "billing", step = "bill_issued", tolerance_kwh = 0.1, digits = 6 }
---*/
SELECT
    bill_id,
    event_ts,
    coalesce(abs(kwh - expected_kwh) > $tolerance_kwh, TRUE) AS firing,
    kwh AS measured,
    CAST(expected_kwh - $tolerance_kwh AS DECIMAL(28, 4)) AS limit_low,
    CAST(expected_kwh + $tolerance_kwh AS DECIMAL(28, 4)) AS limit_high,
    'kWh' AS unit,
    expected_kwh,
    multiplier,
    register_start,
    register_end,
    account_id,
    customer_id,
    meter_id
FROM (
    SELECT
        *,
        TRY_CAST(
            register_delta_kwh(register_start, register_end, $digits) * multiplier AS DECIMAL(28, 4)
        ) AS expected_kwh
    FROM (
        SELECT
            *,
            CASE
                WHEN attrs['multiplier'] IS NULL THEN CAST(1 AS DECIMAL(9, 3))
                ELSE TRY_CAST(attrs['multiplier'] AS DECIMAL(9, 3))
            END AS multiplier
        FROM business_transactions
        WHERE process_type = $process AND step = $step
            AND bill_id IS NOT NULL AND kwh IS NOT NULL AND register_start IS NOT NULL AND register_end IS NOT NULL
    ) m
    WHERE multiplier IS NOT NULL
) b
