/*---
id          = "tx_read_without_bill"
kind        = "alert"
title       = "Meter was read but not billed"
title_zh    = "已抄表未出账"
severity    = "warning"
entity      = ["meter_id", "bill_period"]
category    = "business"
standard    = "internal"
owner       = "billing"
description = """
Fires for a finished reading of a meter and billing period if no bill of that meter and period was issued from then to
`within` later, that included; told when that time has passed, without any event. A later bill resolves it. A bill that
was issued before the reading does not count, as it cannot hold it. Not judged: readings without a meter or a
`bill_period`. Not seen: meters that were not read either (tx_account_without_bill), and whether the bill is of this
reading (tx_bill_readings).
"""
[params]
process      = "meter_read"
step         = "read_done"
bill_process = "billing"
bill_step    = "bill_issued"
within       = "3 days"
---*/
WITH bills AS (
    SELECT meter_id, bill_period, event_ts, bill_id, account_id, customer_id, org_id
    FROM business_transactions
    WHERE process_type = $bill_process AND step = $bill_step AND meter_id IS NOT NULL AND bill_period IS NOT NULL
)
SELECT
    r.meter_id,
    r.bill_period,
    r.event_ts,
    TRUE AS firing,
    CAST(NULL AS VARCHAR) AS bill_id,
    r.register_end,
    r.account_id,
    r.customer_id,
    r.org_id,
    r.case_id
FROM business_transactions r
WHERE r.process_type = $process AND r.step = $step AND r.meter_id IS NOT NULL AND r.bill_period IS NOT NULL
    AND NOT EXISTS (
        SELECT 1
        FROM bills b
        WHERE b.meter_id = r.meter_id AND b.bill_period = r.bill_period
            AND b.event_ts BETWEEN r.event_ts AND r.event_ts + INTERVAL $within
    )
UNION ALL
SELECT
    meter_id,
    bill_period,
    event_ts,
    FALSE AS firing,
    bill_id,
    CAST(NULL AS DECIMAL(18, 4)) AS register_end,
    account_id,
    customer_id,
    org_id,
    CAST(NULL AS VARCHAR) AS case_id
FROM bills
