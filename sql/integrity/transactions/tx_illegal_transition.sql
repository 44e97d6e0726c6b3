/*---
id          = "tx_illegal_transition"
kind        = "alert"
title       = "Case went from one step to another that may not follow it"
title_zh    = "流程环节非法流转"
severity    = "critical"
version     = "2"
entity      = ["case_id", "process_type", "from_step", "step"]
category    = "business"
standard    = "internal"
owner       = "customer service"
description = """
Compares each step of a case and the one before it with the table `workflow_transitions` as of the later one, and tells
of each pair that is not in it: `not_allowed`; `after_end`, if the earlier step ends the process (`last` or `aborted` in
`workflow_steps`); `unknown_step`, if the later one is not in that table. An occurrence: it has happened, and does not
resolve. A step that is delivered twice (same step and `txn_id`) is passed over. Not judged: processes that are not in
`workflow_steps`, and a pair more than `within` apart. Steps of one instant go by their order in the source; if that is
not to be trusted, such pairs may be told wrongly. Not seen: how a case begins, see tx_step_without_predecessor. To allow
a way, add a row with `valid_from`; to silence a process, take it out of `workflow_steps`.
"""
params      = { within = "180 days" }
---*/
WITH steps AS (
    SELECT b.*
    FROM business_transactions b
    WHERE EXISTS (
        SELECT 1
        FROM workflow_steps k
        WHERE k.process_type = b.process_type
            AND (k.valid_from IS NULL OR k.valid_from <= b.event_ts) AND (k.valid_to IS NULL OR b.event_ts < k.valid_to)
    )
),
pairs AS (
    SELECT case_id, event_ts, process_type, from_step, step, from_ts, txn_id, operator_id, org_id
    FROM steps MATCH_RECOGNIZE (
        PARTITION BY case_id, process_type
        ORDER BY event_ts
        MEASURES
            classifier() AS part,
            a.step AS from_step,
            a.event_ts AS from_ts,
            a.txn_id AS from_txn_id
        ALL ROWS PER MATCH
        AFTER MATCH SKIP TO LAST b
        PATTERN (a b)
        DEFINE b AS b.event_ts <= a.event_ts + INTERVAL $within
    )
    WHERE part = 'b' AND NOT coalesce(step = from_step AND txn_id = from_txn_id, FALSE)
)
SELECT
    p.case_id,
    p.from_step,
    p.step,
    p.event_ts,
    CASE
        WHEN s.step IS NULL THEN 'unknown_step'
        WHEN f.kind IN ('last', 'aborted') THEN 'after_end'
        ELSE 'not_allowed'
    END AS reason,
    p.process_type,
    p.from_ts,
    p.operator_id,
    p.org_id,
    p.txn_id
FROM pairs p
LEFT JOIN workflow_steps f ON f.process_type = p.process_type AND f.step = p.from_step
LEFT JOIN workflow_steps s ON s.process_type = p.process_type AND s.step = p.step
LEFT JOIN workflow_transitions t
    ON t.process_type = p.process_type AND t.from_step = p.from_step AND t.to_step = p.step
WHERE t.to_step IS NULL
