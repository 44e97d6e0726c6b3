/*---
id          = "op_many_rules_fail"
kind        = "alert"
title       = "Many rules fail at once"
title_zh    = "多条规则同时失败"
severity    = "critical"
entity      = "scope"
category    = "operations"
unit        = "rules"
standard    = "internal"
owner       = "operations"
description = """
Counts the rules with errors in 10 minutes and fires above `max_rules`: there is a common cause, such as a reference table
with a wild row or a sender with wild numbers; look for it before the single rules of op_failed_rules. One alert for the
job. A window without any error has no row, so the alert resolves in the next window in which few rules fail.
Not seen: rules that give wrong results without failing.
"""
params      = { max_rules = 2 }
---*/
SELECT
    'job' AS scope,
    window_start,
    window_end,
    rules > $max_rules AS firing,
    rules AS measured,
    $max_rules AS limit_high,
    'rules' AS unit,
    errors,
    messages,
    first_message,
    first_topic
FROM (
    SELECT
        window_start,
        window_end,
        count(DISTINCT rule_id) AS rules,
        count(*) AS errors,
        count(DISTINCT message) AS messages,
        min(message) AS first_message,
        min(record_topic) AS first_topic
    FROM TUMBLE(rule_errors, failed_at, INTERVAL '10 minutes')
    GROUP BY window_start, window_end
) e
