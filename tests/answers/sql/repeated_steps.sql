/*---
id          = "repeated_steps"
kind        = "table"
title       = "Step that a case takes twice in a row"
entity      = ["process_type", "case_id"]
owner       = "customer service"
standard    = "internal"
description = """
Rework: one row for each step that is the same as the one before it in its case, however long ago that was. Steps of one
instant go by their order in the source.
"""
---*/
SELECT process_type, case_id, event_ts, step
FROM (
    SELECT
        process_type,
        case_id,
        event_ts,
        step,
        lag(step) OVER (PARTITION BY process_type, case_id ORDER BY event_ts) AS step_before
    FROM business_transactions
)
WHERE step = step_before
