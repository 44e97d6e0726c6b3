/*---
id          = "tx_tou_sum"
kind        = "alert"
title       = "Billed energy differs from the sum of its tariff periods"
title_zh    = "账单电量与分时电量之和不符"
severity    = "critical"
entity      = "bill_id"
category    = "business"
unit        = "kWh"
standard    = "internal"
owner       = "billing"
description = """
Compares the energy of an issued bill with the sum of its sharp, peak, flat and valley parts. Fires if they differ by
more than `tolerance_kwh`: a part was lost, charged twice or put under a wrong tariff period. A part that is missing
counts as 0, as not every tariff has all four; a bill without any part, or without energy, is not judged. A corrected
bill under the same number resolves. Not seen: energy that was put under the wrong part while the sum is right.
"""
params      = { process = "billing", step = "bill_issued", tolerance_kwh = 0.01 }
---*/
SELECT
    bill_id,
    event_ts,
    abs(kwh - parts_kwh) > $tolerance_kwh AS firing,
    kwh AS measured,
    parts_kwh - $tolerance_kwh AS limit_low,
    parts_kwh + $tolerance_kwh AS limit_high,
    'kWh' AS unit,
    parts_kwh,
    t1_kwh,
    t2_kwh,
    t3_kwh,
    t4_kwh,
    tariff_id,
    account_id,
    customer_id
FROM (
    SELECT *, coalesce(t1_kwh, 0) + coalesce(t2_kwh, 0) + coalesce(t3_kwh, 0) + coalesce(t4_kwh, 0) AS parts_kwh
    FROM business_transactions
    WHERE process_type = $process AND step = $step
        AND bill_id IS NOT NULL AND kwh IS NOT NULL AND coalesce(t1_kwh, t2_kwh, t3_kwh, t4_kwh) IS NOT NULL
) b
