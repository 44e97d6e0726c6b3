/*---
id          = "tx_use_without_contract"
kind        = "alert"
title       = "Energy is used where nobody has a contract"
title_zh    = "无合同（无户）用电"
severity    = "critical"
entity      = "meter_id"
category    = "business"
unit        = "kWh"
standard    = "internal"
owner       = "metering"
description = """
Energy that the register of a customer's meter advanced by from its first to its last reading of the local day, if no
account of `customer_accounts` was valid for the meter at any time of that day, nor began within `grace` after it. Fires
above `limit_kwh`. Resolves on the next day with a contract, or on which nothing more was used. Judged are meters of kind
`customer` in `meters`; of others see rd_unknown_meter. Days with one reading, or whose register went backwards without
rolling over at `digits` digits, say nothing. Registers are not multiplied, as the limit is about any use at all. Days are
those of UTC+8. Not seen: what was used between the last reading of one day and the first of the next.
"""
params      = { limit_kwh = 1.0, digits = 6, grace = "1 day" }
---*/
WITH used AS (
    SELECT
        meter_id,
        window_start,
        window_end,
        first_value(energy_imp_kwh ORDER BY ts) AS first_kwh,
        last_value(energy_imp_kwh ORDER BY ts) AS last_kwh,
        count(*) AS readings
    FROM TUMBLE(meter_readings, ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    WHERE energy_imp_kwh IS NOT NULL
    GROUP BY meter_id, window_start, window_end
),
customers AS (
    SELECT
        u.meter_id,
        u.window_start,
        u.window_end,
        register_delta_kwh(u.first_kwh, u.last_kwh, $digits) AS used_kwh,
        u.last_kwh,
        u.readings,
        m.feeder
    FROM used u
    JOIN meters m ON m.meter_id = u.meter_id AND m.kind = 'customer'
    WHERE u.readings > 1
),
matched AS (
    SELECT
        c.meter_id,
        c.window_start,
        c.window_end,
        c.used_kwh,
        c.last_kwh,
        c.readings,
        c.feeder,
        count(a.account_id) AS accounts,
        max(a.account_id) AS account_id
    FROM customers c
    LEFT JOIN customer_accounts a
        ON a.meter_id = c.meter_id
        AND (a.valid_from IS NULL OR a.valid_from <= c.window_end + INTERVAL $grace)
        AND (a.valid_to IS NULL OR c.window_start < a.valid_to)
    GROUP BY c.meter_id, c.window_start, c.window_end, c.used_kwh, c.last_kwh, c.readings, c.feeder
)
SELECT
    meter_id,
    window_start,
    window_end,
    used_kwh > $limit_kwh AND accounts = 0 AS firing,
    used_kwh AS measured,
    $limit_kwh AS limit_high,
    'kWh' AS unit,
    account_id,
    last_kwh,
    readings,
    feeder
FROM matched
WHERE used_kwh IS NOT NULL
