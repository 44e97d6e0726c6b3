/*---
id          = "rp_service_times"
title       = "Which processes keep their times, where does work pile up, and how many cases will be open in four weeks?"
title_zh    = "业务时限达标率、瓶颈环节与在途预测"
description = """
For the head of customer service. Three kinds of rows (`part`), newest month first, by process and organisation.
`limit`: clocks of `sla` that were stopped in the month (tx_sla_results), from `step` to `until_step`: how many, how many in time, and the time used
(`median_h`, `longest_h`; hours of the calendar, nights and weekends included, also where the limit is in working days).
`step`: how long cases stayed in `step` before their next one, of those that left it in the month; `slowest` marks the bottleneck, the
step with the longest mean of the process.
`open`: the newest midnight of tx_open_cases up to the newest transaction: `open_cases` whose last step is `step`, and the longest wait (`longest_h`). `opened_4w` and
`closed_4w` are cases of the process and organisation that began and ended in the four weeks before; `forecast_4w`, on the row of the
process as a whole (`step` is `all`), is what will be open in four weeks if both go on: open plus opened less closed, at least 0.
Cases that never got a further step are in `open` only. Time in which a case waits for the customer is not taken off. A forecast from a few
cases says little, and nothing of a season.
"""
owner       = "customer service"
duckdb      = true
---*/
WITH limits AS (
    SELECT
        CAST(date_trunc('month', event_ts AT TIME ZONE 'Asia/Shanghai') AS DATE) AS local_month,
        process_type,
        coalesce(org_id, 'unknown') AS org_id,
        step,
        until_step,
        class,
        count(*) AS cases,
        count(*) FILTER (WHERE in_time) AS in_time,
        CAST(median(CAST(used_minutes AS DECIMAL(18, 6))) / 60 AS DECIMAL(12, 2)) AS median_h,
        CAST(max(CAST(used_minutes AS DECIMAL(18, 6))) / 60 AS DECIMAL(12, 2)) AS longest_h
    FROM tx_sla_results
    GROUP BY 1, 2, 3, 4, 5, 6
),
known AS (
    SELECT b.case_id, b.process_type, b.org_id, b.step, b.event_ts, b.txn_id, w.kind
    FROM business_transactions b
    JOIN workflow_steps w ON w.process_type = b.process_type AND w.step = b.step
        AND (w.valid_from IS NULL OR w.valid_from <= b.event_ts) AND (w.valid_to IS NULL OR b.event_ts < w.valid_to)
),
moves AS (
    SELECT
        process_type,
        coalesce(org_id, 'unknown') AS org_id,
        step,
        event_ts,
        lead(event_ts) OVER (PARTITION BY process_type, case_id ORDER BY event_ts, txn_id) AS left_at
    FROM known
),
steps AS (
    SELECT
        CAST(date_trunc('month', left_at AT TIME ZONE 'Asia/Shanghai') AS DATE) AS local_month,
        process_type,
        org_id,
        step,
        count(*) AS cases,
        CAST(avg((extract(epoch FROM left_at) - extract(epoch FROM event_ts)) / 3600) AS DECIMAL(12, 2)) AS mean_h,
        CAST(median((extract(epoch FROM left_at) - extract(epoch FROM event_ts)) / 3600) AS DECIMAL(12, 2)) AS median_h,
        CAST(max((extract(epoch FROM left_at) - extract(epoch FROM event_ts)) / 3600) AS DECIMAL(12, 2)) AS longest_h
    FROM moves
    WHERE left_at IS NOT NULL
    GROUP BY 1, 2, 3, 4
),
newest AS (
    -- The table has later midnights too, if the input of the job has ended.
    SELECT max(o.window_end) AS newest_at
    FROM tx_open_cases o
    CROSS JOIN (SELECT max(event_ts) AS last_at FROM business_transactions) b
    WHERE o.window_end <= b.last_at
),
open_steps AS (
    SELECT
        CAST(date_trunc('month', (o.window_end - INTERVAL '1 second') AT TIME ZONE 'Asia/Shanghai') AS DATE) AS local_month,
        o.process_type,
        coalesce(o.org_id, 'unknown') AS org_id,
        o.step,
        o.open_cases,
        CAST(o.longest_waiting_days * 24 AS DECIMAL(12, 2)) AS longest_h
    FROM tx_open_cases o
    JOIN newest n ON n.newest_at = o.window_end
),
flows AS (
    SELECT
        k.process_type,
        coalesce(k.org_id, 'unknown') AS org_id,
        count(DISTINCT CASE WHEN k.kind = 'first' THEN k.case_id END) AS opened_4w,
        count(DISTINCT CASE WHEN k.kind IN ('last', 'aborted') THEN k.case_id END) AS closed_4w
    FROM known k
    CROSS JOIN newest n
    WHERE k.event_ts > n.newest_at - INTERVAL '28 days' AND k.event_ts <= n.newest_at
    GROUP BY 1, 2
),
open_processes AS (
    SELECT local_month, process_type, org_id, sum(open_cases) AS open_cases, max(longest_h) AS longest_h
    FROM open_steps
    GROUP BY local_month, process_type, org_id
),
parts AS (
    SELECT
        local_month,
        'limit' AS part,
        process_type,
        org_id,
        step,
        until_step,
        nullif(class, '') AS class,
        cases,
        in_time,
        CAST(CAST(in_time AS DECIMAL(18, 6)) * 100 / cases AS DECIMAL(9, 2)) AS in_time_pct,
        CAST(NULL AS DECIMAL(12, 2)) AS mean_h,
        median_h,
        longest_h,
        CAST(NULL AS BOOLEAN) AS slowest,
        CAST(NULL AS BIGINT) AS open_cases,
        CAST(NULL AS BIGINT) AS opened_4w,
        CAST(NULL AS BIGINT) AS closed_4w,
        CAST(NULL AS BIGINT) AS forecast_4w
    FROM limits
    UNION ALL
    SELECT
        local_month, 'step', process_type, org_id, step, NULL, NULL, cases, NULL, NULL, mean_h, median_h, longest_h,
        mean_h > 0 AND mean_h = max(mean_h) OVER (PARTITION BY local_month, process_type, org_id), NULL, NULL, NULL, NULL
    FROM steps
    UNION ALL
    SELECT local_month, 'open', process_type, org_id, step, NULL, NULL, NULL, NULL, NULL, NULL, NULL, longest_h, NULL, CAST(open_cases AS BIGINT), NULL, NULL, NULL
    FROM open_steps
    UNION ALL
    SELECT
        p.local_month, 'open', p.process_type, p.org_id, 'all', NULL, NULL, NULL, NULL, NULL, NULL, NULL, p.longest_h, NULL, CAST(p.open_cases AS BIGINT),
        CAST(coalesce(f.opened_4w, 0) AS BIGINT), CAST(coalesce(f.closed_4w, 0) AS BIGINT),
        CAST(greatest(p.open_cases + coalesce(f.opened_4w, 0) - coalesce(f.closed_4w, 0), 0) AS BIGINT)
    FROM open_processes p
    LEFT JOIN flows f ON f.process_type = p.process_type AND f.org_id = p.org_id
)
SELECT *
FROM parts
ORDER BY
    local_month DESC,
    CASE part WHEN 'limit' THEN 1 WHEN 'step' THEN 2 ELSE 3 END,
    process_type,
    org_id,
    step,
    until_step NULLS FIRST,
    class NULLS FIRST
