/*---
id          = "tx_zero_bill_readings"
kind        = "alert"
title       = "Bill of nothing although the meter sent an advance"
title_zh    = "采集有电量而零电费"
severity    = "warning"
entity      = "bill_id"
category    = "business"
unit        = "kWh"
standard    = "internal"
owner       = "billing"
late        = "update"
description = """
Fires for an issued bill with an amount or an energy of 0 if the frozen registers of its meter at exactly the beginning
and the end of its period (tx_frozen_registers) lie more than `limit_kwh` apart. tx_zero_bill says the same of the
registers that stand on the bill; this one also sees bills without them, or with the same one twice. A register of
`digits` digits may roll over; registers are not multiplied, as the limit is about any use at all. Not judged: bills
without meter or period, without both readings (a late one corrects what was said), or whose register went backwards.
Readings are looked for within `within` before the bill. A corrected bill under the same number resolves. Not seen: a
meter that was changed within the period.
"""
params      = { process = "billing", step = "bill_issued", limit_kwh = 5, digits = 6, within = "100 days" }
---*/
WITH bills AS (
    SELECT bill_id, event_ts, meter_id, period_start, period_end, amount, kwh, account_id, customer_id
    FROM business_transactions
    WHERE process_type = $process AND step = $step AND bill_id IS NOT NULL AND meter_id IS NOT NULL
        AND (amount IS NOT NULL OR kwh IS NOT NULL)
),
begun AS (
    SELECT b.*, r.energy_imp_kwh AS first_kwh
    FROM bills b
    JOIN tx_frozen_registers r
        ON r.meter_id = b.meter_id AND r.ts = b.period_start
        AND r.ts BETWEEN b.event_ts - INTERVAL $within AND b.event_ts
),
moved AS (
    SELECT b.*, r.energy_imp_kwh AS last_kwh, register_delta_kwh(b.first_kwh, r.energy_imp_kwh, $digits) AS moved_kwh
    FROM begun b
    JOIN tx_frozen_registers r
        ON r.meter_id = b.meter_id AND r.ts = b.period_end
        AND r.ts BETWEEN b.event_ts - INTERVAL $within AND b.event_ts
)
SELECT
    bill_id,
    event_ts,
    moved_kwh > $limit_kwh AND (coalesce(amount = 0, FALSE) OR coalesce(kwh = 0, FALSE)) AS firing,
    moved_kwh AS measured,
    $limit_kwh AS limit_high,
    'kWh' AS unit,
    amount,
    kwh,
    first_kwh,
    last_kwh,
    meter_id,
    account_id,
    customer_id
FROM moved
WHERE moved_kwh IS NOT NULL
