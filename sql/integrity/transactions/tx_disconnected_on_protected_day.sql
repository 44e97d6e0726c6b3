/*---
id          = "tx_disconnected_on_protected_day"
kind        = "alert"
title       = "Customer was cut off on a day on which nobody may be"
title_zh    = "保护日停电"
severity    = "critical"
entity      = "case_id"
category    = "business"
standard    = "internal"
owner       = "billing"
description = """
Fires for a disconnection on a day off, or less than `days_ahead` days before one, when nobody can pay and be reconnected
at once (weekends, and `holidays` with its make-up workdays), or on a day of `protected_days`, which may be of one
organisation. Days are those of the zone `zone`. An occurrence: it does not resolve. `days_ahead` = 0 allows it up to the
last working day. Emergencies and cuts at the customer's wish belong under another step or process.
"""
[params]
process    = "disconnect"
step       = "disconnected"
zone       = "Asia/Shanghai"
days_ahead = 1
---*/
WITH cuts AS (
    SELECT *, CAST(event_ts AT TIME ZONE $zone AS DATE) AS local_date
    FROM business_transactions
    WHERE process_type = $process AND step = $step
),
dated AS (
    SELECT
        c.*,
        working_days_between(c.local_date - 1, c.local_date, d.days_off, d.days_worked) AS today,
        working_days_between(c.local_date, c.local_date + $days_ahead, d.days_off, d.days_worked) AS ahead
    FROM cuts c
    CROSS JOIN tx_calendar d
),
judged AS (
    SELECT
        d.*,
        CASE
            WHEN d.today = 0 THEN 'day_off'
            WHEN d.ahead < $days_ahead THEN 'before_day_off'
            WHEN p.day IS NOT NULL THEN coalesce(p.reason, 'protected')
        END AS reason
    FROM dated d
    LEFT JOIN protected_days p ON p.day = d.local_date AND (coalesce(p.org_id, '') = '' OR p.org_id = d.org_id)
)
SELECT case_id, event_ts, reason, local_date, account_id, customer_id, service_point_id, operator_id, org_id
FROM judged
WHERE reason IS NOT NULL
