/*---
id          = "tx_sla_results"
kind        = "table"
title       = "Service times that were kept or broken, case by case"
title_zh    = "业务时限完成情况"
version     = "1.1"
category    = "business"
entity      = ["case_id", "process_type", "step", "until_step"]
standard    = "internal"
owner       = "customer service"
description = """
One row for each clock of tx_sla_marks that was stopped: how much of its limit was used and whether it was kept. A stop
on the last day, or exactly so many minutes after the start, is in time. `stopped_by` is the step that did it, which is
the end of the case if that came before `until_step`. Clocks that still run are not here: see tx_sla_due. Clocks that
ran for longer than `within` are left out. Shares of the kept by month or organisation are a query over this table.
"""
params      = { zone = "Asia/Shanghai", within = "180 days" }
---*/
WITH stops AS (
    SELECT
        *,
        last_value(starts) OVER w AS was_running,
        last_value(event_ts) OVER w AS started_ts,
        last_value(start_date) OVER w AS started_date,
        last_value(deadline_ts) OVER w AS due_ts,
        last_value(limit_working_days) OVER w AS limit_days,
        last_value(limit_minutes) OVER w AS limit_min
    FROM tx_sla_marks
    WINDOW w AS (
        PARTITION BY case_id, process_type, step, until_step, class
        ORDER BY event_ts
        RANGE BETWEEN INTERVAL $within PRECEDING AND INTERVAL '1 microsecond' PRECEDING
    )
)
SELECT
    s.case_id,
    s.process_type,
    s.step,
    s.until_step,
    s.class,
    s.event_ts,
    s.marked_by AS stopped_by,
    s.started_ts,
    s.due_ts AS deadline_ts,
    CASE WHEN s.limit_days IS NOT NULL THEN s.event_ts < s.due_ts ELSE s.event_ts <= s.due_ts END AS in_time,
    CASE
        WHEN s.limit_days IS NOT NULL THEN working_days_between(
            s.started_date,
            CAST(s.event_ts AT TIME ZONE $zone AS DATE),
            c.days_off,
            c.days_worked
        )
    END AS used_working_days,
    s.limit_days AS limit_working_days,
    CAST((extract(epoch FROM s.event_ts) - extract(epoch FROM s.started_ts)) / 60 AS DECIMAL(12, 2)) AS used_minutes,
    s.limit_min AS limit_minutes,
    s.org_id,
    s.customer_id
FROM stops s
CROSS JOIN tx_calendar c
WHERE NOT s.starts AND s.was_running
