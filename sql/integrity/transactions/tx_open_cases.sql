/*---
id          = "tx_open_cases"
kind        = "table"
title       = "Open cases of each process, step and organisation, with their age, day by day"
title_zh    = "在途工单按环节统计"
category    = "business"
entity      = ["process_type", "step", "org_id"]
standard    = "internal"
owner       = "customer service"
description = """
At midnight (UTC+8) counts the cases by the step that came last, if that does not end their process (`last` or `aborted`
in `workflow_steps`): where work piles up, and how long it lies there. `waiting` is by the last step, `oldest` by the
first one. Cases of which nothing was heard for `within` are left out, as are processes that are not in the table. Steps
of one instant go by their `txn_id`. What is late against its limits is told by tx_sla_due.
"""
params      = { within = "100 days" }
---*/
WITH known AS (
    SELECT b.case_id, b.event_ts, b.process_type, b.step, b.org_id, b.txn_id, s.kind IN ('last', 'aborted') AS ends
    FROM business_transactions b
    JOIN workflow_steps s ON s.process_type = b.process_type AND s.step = b.step
),
cases AS (
    SELECT
        case_id,
        process_type,
        window_start,
        window_end,
        last_value(step ORDER BY event_ts, txn_id) AS step,
        last_value(org_id ORDER BY event_ts, txn_id) AS org_id,
        last_value(ends ORDER BY event_ts, txn_id) AS has_ended,
        max(event_ts) AS last_ts,
        min(event_ts) AS first_ts
    FROM HOP(known, event_ts, INTERVAL '1 day', INTERVAL $within, TIMESTAMP '1970-01-01T16:00:00Z')
    GROUP BY case_id, process_type, window_start, window_end
),
ages AS (
    SELECT
        *,
        CAST((extract(epoch FROM window_end) - extract(epoch FROM last_ts)) / 86400 AS DECIMAL(9, 2)) AS waiting_days,
        CAST((extract(epoch FROM window_end) - extract(epoch FROM first_ts)) / 86400 AS DECIMAL(9, 2)) AS age_days
    FROM cases
    WHERE NOT has_ended
)
SELECT
    process_type,
    step,
    org_id,
    window_start,
    window_end,
    CAST(window_end + INTERVAL '8 hours' - INTERVAL '1 day' AS DATE) AS local_date,
    count(*) AS open_cases,
    max(waiting_days) AS longest_waiting_days,
    CAST(avg(waiting_days) AS DECIMAL(9, 2)) AS mean_waiting_days,
    max(age_days) AS oldest_days
FROM ages
GROUP BY process_type, step, org_id, window_start, window_end
