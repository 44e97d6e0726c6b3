/*---
id          = "tx_sla_days"
kind        = "alert"
title       = "Case uses up its working days, or has used them up"
title_zh    = "业务办理即将超时限或已超时限（工作日）"
severity    = "warning"
entity      = ["case_id", "step", "until_step"]
category    = "business"
unit        = "working days"
standard    = "internal"
owner       = "customer service"
description = """
Looks at midnight (UTC+8) at each clock of tx_sla_marks that runs and has a limit in working days, without waiting for
any event of its case. A warning when the share `warn_share` of the limit is used up (rounded down to whole days: of 5
days the 4th has passed, of 3 days the 2nd), critical when the last day has passed and the step that stops the clock has
not come. `measured` counts the working days that have passed since the start. Resolves at the first look after the stop.
A case is looked at for `within` after its start. Which class a case belongs to is said by its starting step; one without
a class that the table `sla` knows has no clock. Not seen: time in which the case waits for the customer, which counts.
Limits are lines of `sla`, holidays and make-up workdays lines of `holidays`. tx_sla_results has the finished ones.
"""
params      = { within = "100 days", utc_offset = "8 hours" }
---*/
WITH looks AS (
    SELECT
        case_id,
        process_type,
        step,
        until_step,
        class,
        window_start,
        window_end,
        max(event_ts) FILTER (WHERE starts) AS started_ts,
        max(event_ts) FILTER (WHERE NOT starts) AS stopped_ts,
        last_value(start_date ORDER BY event_ts) FILTER (WHERE starts) AS start_date,
        last_value(due_date ORDER BY event_ts) FILTER (WHERE starts) AS due_date,
        last_value(deadline_ts ORDER BY event_ts) FILTER (WHERE starts) AS deadline_ts,
        last_value(warn_ts ORDER BY event_ts) FILTER (WHERE starts) AS warn_ts,
        last_value(limit_working_days ORDER BY event_ts) FILTER (WHERE starts) AS limit_working_days,
        last_value(org_id ORDER BY event_ts) FILTER (WHERE starts) AS org_id
    FROM HOP(
        (SELECT * FROM tx_sla_marks WHERE limit_working_days IS NOT NULL),
        event_ts, INTERVAL '1 day', INTERVAL $within, TIMESTAMP '1970-01-01T16:00:00Z'
    )
    GROUP BY case_id, process_type, step, until_step, class, window_start, window_end
),
judged AS (
    SELECT *, stopped_ts IS NULL OR stopped_ts < started_ts AS running
    FROM looks
    WHERE started_ts IS NOT NULL
)
SELECT
    j.case_id,
    j.step,
    j.until_step,
    j.window_start,
    j.window_end,
    j.running AND j.warn_ts <= j.window_end AS firing,
    CASE WHEN j.running AND j.deadline_ts <= j.window_end THEN 'critical' ELSE 'warning' END AS severity,
    CASE
        WHEN NOT j.running THEN 'stopped'
        WHEN j.deadline_ts <= j.window_end THEN 'breached'
        WHEN j.warn_ts <= j.window_end THEN 'will_breach'
        ELSE 'running'
    END AS state,
    working_days_between(
        j.start_date,
        CAST(j.window_end + INTERVAL $utc_offset - INTERVAL '1 day' AS DATE),
        c.days_off,
        c.days_worked
    ) AS measured,
    j.limit_working_days AS limit_high,
    'working days' AS unit,
    j.due_date,
    j.started_ts,
    j.stopped_ts,
    j.process_type,
    j.class,
    j.org_id
FROM judged j
CROSS JOIN tx_calendar c
WHERE j.running OR j.stopped_ts >= j.window_end - INTERVAL '1 day'
