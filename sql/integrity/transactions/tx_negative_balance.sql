/*---
id          = "tx_negative_balance"
kind        = "alert"
title       = "Prepaid meter supplies although its balance has been negative for days"
title_zh    = "预付费余额为负仍合闸用电"
severity    = "warning"
entity      = "meter_id"
category    = "business"
unit        = "yuan"
standard    = "internal"
owner       = "billing"
description = """
Fires for a statement of a negative balance (step `stated_step`, `amount`, of a meter) if the relay of the meter is
closed then, and neither a balance of 0 or more nor an opening of the relay comes within `within` after it, that
included; told when that time has passed. Resolves with either of them. A relay of which nothing was heard within
`known_for` counts as closed; closing and opening at one instant as closed. Balances that are stated rarely delay it. The
other way round, a cut-off customer with money, is in tx_not_reconnected. Which customers may owe (`days` of emergency
credit) is not known here: make `within` as long.
"""
[params]
stated_step = "balance_stated"
open_event  = "relay_open"
close_event = "relay_close"
within      = "3 days"
known_for   = "400 days"
---*/
WITH facts AS (
    SELECT
        meter_id,
        event_ts,
        amount AS balance_yuan,
        CAST(NULL AS VARCHAR) AS relay_event,
        account_id
    FROM business_transactions
    WHERE step = $stated_step AND meter_id IS NOT NULL AND amount IS NOT NULL
    UNION ALL
    SELECT
        meter_id,
        start_ts AS event_ts,
        CAST(NULL AS DECIMAL(18, 2)) AS balance_yuan,
        event_code AS relay_event,
        CAST(NULL AS VARCHAR) AS account_id
    FROM meter_events
    WHERE event_code IN ($open_event, $close_event)
),
states AS (
    SELECT
        *,
        max(CASE WHEN relay_event = $open_event THEN event_ts END) OVER w AS opened_ts,
        max(CASE WHEN relay_event = $close_event THEN event_ts END) OVER w AS closed_ts
    FROM facts
    WINDOW w AS (PARTITION BY meter_id ORDER BY event_ts RANGE INTERVAL $known_for PRECEDING)
)
SELECT
    s.meter_id,
    s.event_ts,
    TRUE AS firing,
    s.balance_yuan AS measured,
    0 AS limit_low,
    'yuan' AS unit,
    s.closed_ts,
    s.account_id
FROM states s
WHERE s.balance_yuan < 0 AND (s.opened_ts IS NULL OR coalesce(s.closed_ts >= s.opened_ts, FALSE))
    AND NOT EXISTS (
        SELECT 1
        FROM facts f
        WHERE f.meter_id = s.meter_id AND (f.balance_yuan >= 0 OR f.relay_event = $open_event)
            AND f.event_ts > s.event_ts AND f.event_ts <= s.event_ts + INTERVAL $within
    )
UNION ALL
SELECT
    meter_id,
    event_ts,
    FALSE AS firing,
    balance_yuan AS measured,
    0 AS limit_low,
    'yuan' AS unit,
    CAST(NULL AS TIMESTAMP) AT TIME ZONE 'UTC' AS closed_ts,
    account_id
FROM facts
WHERE balance_yuan >= 0 OR relay_event = $open_event
