/*---
id          = "op_failed_rules"
kind        = "alert"
title       = "A rule fails on what it reads"
severity    = "warning"
entity      = "rule_id"
category    = "operations"
unit        = "errors"
standard    = "internal"
owner       = "operations"
description = """
Counts the errors of each rule in 10 minutes. A rule that fails on an event is stopped in the lane of that event until it is changed; a
rule that fails on a result leaves out that result and goes on. `rule_errors` holds each error with its place.
"""
---*/
SELECT
    rule_id,
    window_start,
    window_end,
    count(*) AS measured,
    count(record_offset) AS stopped_lanes,
    min(message) AS first_message
FROM TUMBLE(rule_errors, failed_at, INTERVAL '10 minutes')
GROUP BY rule_id, window_start, window_end
