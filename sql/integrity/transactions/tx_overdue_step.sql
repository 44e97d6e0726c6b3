/*---
id            = "tx_overdue_step"
kind          = "alert"
title         = "Case has not moved on by the time its step was due"
title_zh      = "业务环节到期未办"
severity      = "warning"
version       = "2"
entity        = ["case_id", "process_type"]
category      = "business"
unit          = "h"
standard      = "internal"
owner         = "customer service"
description   = """
Looks at each case of a process that matches `processes` once every `every`, at whole multiples of it since 1970-01-01
UTC, and takes the `due_ts` of its latest step as the time by which a further step must come; steps of another process
with the same `case_id` are of another case. Fires if that time lies before the look; due exactly at the look is in
time. Resolves at the first look that finds a later step, unless that one is overdue in turn; a latest step without
`due_ts` owes nothing. This rule tells of cases that stand still; a step that came too late, but before the next look,
is found by tx_late_step. Each case gives `within` / `every` rows, so copy the rule with both made shorter for fault
repairs that are due in minutes. Bills and payments are not among the processes, as tx_unpaid_bill is about them. Not
seen: steps due more than `within` after they happened. Steps at the same instant go by their `txn_id`.
"""
[params]
every         = "1 day"
within        = "60 days"
processes     = "^(new_connection|capacity_change|refund|work_order|complaint|disconnect|reconnect)$"
---*/
SELECT
    case_id,
    window_start,
    window_end,
    coalesce(due_ts < window_end, FALSE) AS firing,
    CAST((extract(epoch FROM window_end) - extract(epoch FROM due_ts)) / 3600 AS DECIMAL(12, 2)) AS measured,
    0 AS limit_high,
    'h' AS unit,
    due_ts,
    last_step,
    last_ts,
    process_type,
    org_id
FROM (
    SELECT
        case_id,
        process_type,
        window_start,
        window_end,
        last_value(due_ts ORDER BY event_ts, txn_id) AS due_ts,
        last_value(step ORDER BY event_ts, txn_id) AS last_step,
        max(event_ts) AS last_ts,
        last_value(org_id ORDER BY event_ts, txn_id) AS org_id
    FROM HOP(business_transactions, event_ts, INTERVAL $every, INTERVAL $within)
    WHERE regexp_like(process_type, $processes)
    GROUP BY case_id, process_type, window_start, window_end
) c
