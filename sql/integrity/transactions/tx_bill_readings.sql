/*---
id          = "tx_bill_readings"
kind        = "alert"
title       = "Register on a bill is not the one that the meter sent, or was estimated"
title_zh    = "账单示数与采集示数不符或为估抄"
severity    = "critical"
entity      = ["bill_id", "register"]
category    = "business"
unit        = "kWh"
standard    = "internal"
owner       = "billing"
late        = "update"
description = """
Compares both registers of an issued bill with the frozen readings of its meter at exactly the beginning and the end of
its period (`period_start`, `period_end`; see tx_frozen_registers). Fires if they differ by more than `tolerance_kwh`,
that included as good, or if the reading was estimated. Verdict `no_reading` (says nothing) if there is none; a reading
that was collected days late corrects what was said. Not judged: bills without meter, period or register. A corrected
bill under the same number resolves. The reading must be of an instant within `within` before the bill. The registers of
bills and of readings are compared as they stand, without transformer ratios. Not seen: energy billed wrongly from right
registers, see tx_register_mismatch.
"""
[params]
process       = "billing"
step          = "bill_issued"
tolerance_kwh = 0.1
within        = "70 days"
---*/
WITH registers AS (
    SELECT bill_id, event_ts, meter_id, 'start' AS register, period_start AS read_ts, register_start AS billed_kwh,
        account_id, customer_id
    FROM business_transactions
    WHERE process_type = $process AND step = $step
        AND bill_id IS NOT NULL AND meter_id IS NOT NULL AND period_start IS NOT NULL AND register_start IS NOT NULL
    UNION ALL
    SELECT bill_id, event_ts, meter_id, 'end' AS register, period_end AS read_ts, register_end AS billed_kwh,
        account_id, customer_id
    FROM business_transactions
    WHERE process_type = $process AND step = $step
        AND bill_id IS NOT NULL AND meter_id IS NOT NULL AND period_end IS NOT NULL AND register_end IS NOT NULL
)
SELECT
    b.bill_id,
    b.register,
    b.event_ts,
    r.is_estimate OR abs(b.billed_kwh - r.energy_imp_kwh) > $tolerance_kwh AS firing,
    CASE
        WHEN r.meter_id IS NULL THEN 'no_reading'
        WHEN abs(b.billed_kwh - r.energy_imp_kwh) > $tolerance_kwh THEN 'differs'
        WHEN r.is_estimate THEN 'estimated'
        ELSE 'right'
    END AS verdict,
    b.billed_kwh AS measured,
    r.energy_imp_kwh - $tolerance_kwh AS limit_low,
    r.energy_imp_kwh + $tolerance_kwh AS limit_high,
    'kWh' AS unit,
    r.energy_imp_kwh AS read_kwh,
    b.read_ts,
    b.meter_id,
    b.account_id,
    b.customer_id
FROM registers b
LEFT JOIN tx_frozen_registers r
    ON r.meter_id = b.meter_id AND r.ts = b.read_ts
    AND r.ts BETWEEN b.event_ts - INTERVAL $within AND b.event_ts
