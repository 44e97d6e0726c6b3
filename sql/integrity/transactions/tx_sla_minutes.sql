/*---
id          = "tx_sla_minutes"
kind        = "alert"
title       = "Case uses up its minutes, or has used them up"
title_zh    = "抢修等业务即将超时限或已超时限（分钟）"
severity    = "warning"
entity      = ["case_id", "step", "until_step"]
category    = "business"
unit        = "min"
standard    = "internal"
owner       = "customer service"
description = """
Looks every `every` at each clock of tx_sla_marks that runs and has a limit in minutes, without waiting for any event of
its case: a crew must be at a fault within so many minutes. A warning when the share `warn_share` of the limit is used
up, critical when the limit is; exactly at the limit is in time. Resolves at the first look after the stop. What was late
but stopped before the next look is in tx_sla_results only, so keep `every` short against the limits. A case is looked at
for `within` after its start; after that its alert stays as it is. A case whose starting step does not say a class that
the table `sla` knows has no clock.
"""
params      = { every = "5 minutes", within = "1 day" }
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
        last_value(deadline_ts ORDER BY event_ts) FILTER (WHERE starts) AS deadline_ts,
        last_value(warn_ts ORDER BY event_ts) FILTER (WHERE starts) AS warn_ts,
        last_value(limit_minutes ORDER BY event_ts) FILTER (WHERE starts) AS limit_minutes,
        last_value(org_id ORDER BY event_ts) FILTER (WHERE starts) AS org_id
    FROM HOP(
        (SELECT * FROM tx_sla_marks WHERE limit_working_days IS NULL AND limit_minutes IS NOT NULL),
        event_ts, INTERVAL $every, INTERVAL $within
    )
    GROUP BY case_id, process_type, step, until_step, class, window_start, window_end
),
judged AS (
    SELECT *, stopped_ts IS NULL OR stopped_ts < started_ts AS running
    FROM looks
    WHERE started_ts IS NOT NULL
)
SELECT
    case_id,
    step,
    until_step,
    window_start,
    window_end,
    running AND warn_ts <= window_end AS firing,
    CASE WHEN running AND deadline_ts < window_end THEN 'critical' ELSE 'warning' END AS severity,
    CASE
        WHEN NOT running THEN 'stopped'
        WHEN deadline_ts < window_end THEN 'breached'
        WHEN warn_ts <= window_end THEN 'will_breach'
        ELSE 'running'
    END AS state,
    CAST((extract(epoch FROM window_end) - extract(epoch FROM started_ts)) / 60 AS DECIMAL(12, 2)) AS measured,
    limit_minutes AS limit_high,
    'min' AS unit,
    deadline_ts,
    started_ts,
    stopped_ts,
    process_type,
    class,
    org_id
FROM judged
WHERE running OR stopped_ts >= window_end - INTERVAL $every
