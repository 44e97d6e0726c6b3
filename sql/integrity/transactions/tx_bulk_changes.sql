/*---
id          = "tx_bulk_changes"
kind        = "alert"
title       = "Many transactions of one operator outside office hours"
title_zh    = "非工作时间批量操作"
severity    = "critical"
entity      = "operator_id"
category    = "security"
unit        = "steps"
standard    = "internal"
owner       = "audit"
description = """
Counts the steps of each operator in each hour that fall outside office hours: before `opens_hour`, from `closes_hour`
on, or on a Saturday or Sunday, in the time zone `zone`. Fires above `max_steps`; resolves at the next hour in which the
operator works and stays within. Machines, whose names match `machines`, may work at night; steps without an operator
are not counted. A step that is delivered twice counts twice. Not seen: public holidays, reads and exports that are no
steps, and many changes spread over the border of two hours or over several operators.
"""
[params]
zone          = "Asia/Shanghai"
opens_hour    = 7
closes_hour   = 20
max_steps     = 100
machines      = "(?i)^(system|batch|robot|billing-run)$"
---*/
SELECT
    operator_id,
    window_start,
    window_end,
    off_hours > $max_steps AS firing,
    off_hours AS measured,
    $max_steps AS limit_high,
    'steps' AS unit,
    steps,
    cases,
    first_ts,
    last_ts
FROM (
    SELECT
        operator_id,
        window_start,
        window_end,
        count(*) FILTER (
            WHERE extract(hour FROM event_ts AT TIME ZONE $zone) < $opens_hour
                OR extract(hour FROM event_ts AT TIME ZONE $zone) >= $closes_hour
                OR extract(isodow FROM event_ts AT TIME ZONE $zone) >= 6
        ) AS off_hours,
        count(*) AS steps,
        count(DISTINCT case_id) AS cases,
        min(event_ts) AS first_ts,
        max(event_ts) AS last_ts
    FROM TUMBLE(business_transactions, event_ts, INTERVAL '1 hour')
    WHERE NOT regexp_like(operator_id, $machines)
    GROUP BY operator_id, window_start, window_end
) o
