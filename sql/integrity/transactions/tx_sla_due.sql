/*---
id          = "tx_sla_due"
kind        = "alert"
title       = "Case uses up its time limit, or has used it up"
title_zh    = "业务办理即将超时限或已超时限"
severity    = "warning"
version     = "2"
entity      = ["case_id", "process_type", "step", "until_step"]
category    = "business"
standard    = "internal"
owner       = "customer service"
description = """
Looks at each clock of tx_sla_marks that runs, without waiting for any event of its case: at midnight (UTC+8), if its
limit is in working days, every `every`, if it is in minutes. A warning when the share `warn_share` of the limit is used
up (of working days rounded down: of 5 days the 4th has passed, of 3 days the 2nd); critical when all of it is, and the
step that stops the clock has not come: when the last day has passed, or the look is later than so many minutes after
the start. `measured` counts the working days that have passed since the start, or the minutes. Resolves at the first
look after the stop. What was late but stopped before the next look is in tx_sla_results only, so keep `every` short
against the limits. A case is looked at for `within_days` or `within_minutes` after its start; after that its alert
stays as it is. Which class a case belongs to is said by its starting step: a line of that class goes before a general
one for the same steps, and a case with neither has no clock. A line without a share gives no warning. Not seen: time in
which the case waits for the customer, which counts. Limits are lines of `sla`, holidays and make-up workdays lines of
`holidays`.
"""
[params]
every          = "5 minutes"
within_days    = "100 days"
within_minutes = "1 day"
utc_offset     = "8 hours"
---*/
WITH looks AS (
    SELECT
        case_id,
        process_type,
        step,
        until_step,
        window_start,
        window_end,
        window_end - INTERVAL '1 day' AS look_before,
        max(event_ts) FILTER (WHERE NOT starts) AS stopped_ts,
        max(event_ts) FILTER (WHERE starts) AS started_ts,
        last_value(start_date ORDER BY event_ts) FILTER (WHERE starts) AS start_date,
        last_value(due_date ORDER BY event_ts) FILTER (WHERE starts) AS due_date,
        last_value(deadline_ts ORDER BY event_ts) FILTER (WHERE starts) AS deadline_ts,
        last_value(warn_ts ORDER BY event_ts) FILTER (WHERE starts) AS warn_ts,
        last_value(limit_working_days ORDER BY event_ts) FILTER (WHERE starts) AS limit_working_days,
        CAST(NULL AS BIGINT) AS limit_minutes,
        last_value(class ORDER BY event_ts) FILTER (WHERE starts) AS class,
        last_value(org_id ORDER BY event_ts) FILTER (WHERE starts) AS org_id
    FROM HOP(
        (SELECT * FROM tx_sla_marks WHERE limit_working_days IS NOT NULL),
        event_ts, INTERVAL '1 day', INTERVAL $within_days, TIMESTAMP '1970-01-01T16:00:00Z'
    )
    GROUP BY case_id, process_type, step, until_step, window_start, window_end
    UNION ALL
    SELECT
        case_id,
        process_type,
        step,
        until_step,
        window_start,
        window_end,
        window_end - INTERVAL $every AS look_before,
        max(event_ts) FILTER (WHERE NOT starts) AS stopped_ts,
        max(event_ts) FILTER (WHERE starts) AS started_ts,
        CAST(NULL AS DATE) AS start_date,
        CAST(NULL AS DATE) AS due_date,
        last_value(deadline_ts ORDER BY event_ts) FILTER (WHERE starts) AS deadline_ts,
        last_value(warn_ts ORDER BY event_ts) FILTER (WHERE starts) AS warn_ts,
        CAST(NULL AS BIGINT) AS limit_working_days,
        last_value(limit_minutes ORDER BY event_ts) FILTER (WHERE starts) AS limit_minutes,
        last_value(class ORDER BY event_ts) FILTER (WHERE starts) AS class,
        last_value(org_id ORDER BY event_ts) FILTER (WHERE starts) AS org_id
    FROM HOP(
        (SELECT * FROM tx_sla_marks WHERE limit_working_days IS NULL AND limit_minutes IS NOT NULL),
        event_ts, INTERVAL $every, INTERVAL $within_minutes
    )
    GROUP BY case_id, process_type, step, until_step, window_start, window_end
),
judged AS (
    SELECT
        *,
        stopped_ts IS NULL OR stopped_ts < started_ts AS running,
        warn_ts <= window_end AS nearly_used,
        -- The end of the last day is too late already; so many minutes after the start are still in time.
        CASE
            WHEN limit_working_days IS NOT NULL THEN deadline_ts <= window_end
            ELSE deadline_ts < window_end
        END AS used_up
    FROM looks
    WHERE started_ts IS NOT NULL
)
SELECT
    j.case_id,
    j.step,
    j.until_step,
    j.window_start,
    j.window_end,
    j.running AND (j.used_up OR coalesce(j.nearly_used, FALSE)) AS firing,
    CASE WHEN j.running AND j.used_up THEN 'critical' ELSE 'warning' END AS severity,
    CASE
        WHEN NOT j.running THEN 'stopped'
        WHEN j.used_up THEN 'breached'
        WHEN j.nearly_used THEN 'will_breach'
        ELSE 'running'
    END AS state,
    CAST(
        CASE
            WHEN j.limit_working_days IS NOT NULL THEN working_days_between(
                j.start_date,
                CAST(j.window_end + INTERVAL $utc_offset - INTERVAL '1 day' AS DATE),
                c.days_off,
                c.days_worked
            )
            ELSE (extract(epoch FROM j.window_end) - extract(epoch FROM j.started_ts)) / 60
        END AS DECIMAL(12, 2)
    ) AS measured,
    coalesce(j.limit_working_days, j.limit_minutes) AS limit_high,
    CASE WHEN j.limit_working_days IS NOT NULL THEN 'working days' ELSE 'min' END AS unit,
    j.due_date,
    j.deadline_ts,
    j.started_ts,
    j.stopped_ts,
    j.process_type,
    j.class,
    j.org_id
FROM judged j
CROSS JOIN tx_calendar c
WHERE j.running OR j.stopped_ts >= j.look_before
