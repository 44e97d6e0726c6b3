/*---
id          = "tx_late_step"
kind        = "alert"
title       = "Step came after the time the one before it was due"
title_zh    = "业务环节超期完成"
severity    = "info"
version     = "2"
entity      = ["case_id", "process_type"]
category    = "business"
unit        = "h"
standard    = "internal"
owner       = "customer service"
description = """
Compares each step of a case with the `due_ts` of the step before it and tells of each step that came later; exactly at
that time is in time. It counts broken service promises after the fact, also those that tx_overdue_step did not see
between two of its looks. A step without `due_ts` promises nothing. A case that stays silent for longer than `within` is
not judged any more. A case is known by its `case_id` within its process: another process may use the same one. Steps of
one instant have no order of their own, and may be compared the wrong way round.
"""
params      = { within = "60 days" }
---*/
SELECT
    case_id,
    event_ts,
    CAST((extract(epoch FROM event_ts) - extract(epoch FROM due_before)) / 3600 AS DECIMAL(12, 2)) AS measured,
    0 AS limit_high,
    'h' AS unit,
    step_before,
    step,
    due_before AS due_ts,
    process_type,
    org_id
FROM business_transactions MATCH_RECOGNIZE (
    PARTITION BY case_id, process_type
    ORDER BY event_ts
    MEASURES
        classifier() AS part,
        a.due_ts AS due_before,
        a.step AS step_before
    ALL ROWS PER MATCH
    AFTER MATCH SKIP TO LAST b
    PATTERN (a b)
    DEFINE b AS b.event_ts <= a.event_ts + INTERVAL $within
)
WHERE part = 'b' AND event_ts > due_before
