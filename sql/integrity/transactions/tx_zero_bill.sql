/*---
id          = "tx_zero_bill"
kind        = "alert"
title       = "Bill of nothing although the register moved"
title_zh    = "有用电而零电费"
severity    = "warning"
entity      = "bill_id"
category    = "business"
unit        = "kWh"
standard    = "internal"
owner       = "billing"
description = """
Fires for an issued bill with an amount or an energy of 0 whose register readings lie more than `limit_kwh` apart:
energy that was used and not charged. A register of `digits` digits may roll over; readings in units of a transformer
ratio are not multiplied, as the limit is about any use at all. Not judged: bills without both readings, without amount
and energy, or whose register went backwards, which tx_register_mismatch tells. A corrected bill under the same number
resolves. Not seen: an amount of 0 that a credit explains.
"""
params      = { process = "billing", step = "bill_issued", limit_kwh = 5, digits = 6 }
---*/
SELECT
    bill_id,
    event_ts,
    moved_kwh > $limit_kwh AND (coalesce(amount = 0, FALSE) OR coalesce(kwh = 0, FALSE)) AS firing,
    moved_kwh AS measured,
    $limit_kwh AS limit_high,
    'kWh' AS unit,
    amount,
    kwh,
    register_start,
    register_end,
    account_id,
    customer_id,
    meter_id
FROM (
    SELECT *, register_delta_kwh(register_start, register_end, $digits) AS moved_kwh
    FROM business_transactions
    WHERE process_type = $process AND step = $step AND bill_id IS NOT NULL
        AND (amount IS NOT NULL OR kwh IS NOT NULL)
) b
WHERE moved_kwh IS NOT NULL
