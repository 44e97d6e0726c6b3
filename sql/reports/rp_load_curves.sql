/*---
id          = "rp_load_curves"
title       = "When do which classes of customers draw power, who makes the peak, and who could shift load?"
title_zh    = "分类别负荷曲线、峰值贡献与需求响应候选"
description = """
For planners of supply and of demand response. Two kinds of rows (`part`), newest month first. `curve`: the load of a customer class and
industry in each local hour, on workdays and on days off (weekends and holidays, make-up workdays taken into account): the sum of the mean powers of its
accounts. `is_peak` marks the hour in which the workday load of all classes is highest, `share_pct` is what the class is of all classes in that hour.
`account`: the 20 accounts that draw most above their own lowest hour in the peak hour of workdays (`flexible_kw`): candidates for demand
response, as far as the power is there and not always.
`accounts_heard` are those with a power in that hour, of the registered `accounts` at the end of the month. An hour without readings has no row:
of meters that report every six hours there are four. Power is times the ratios of `pq_points`, the mean of what came, and readings
count alike however long their interval is. Feed-in is negative. It cannot say what a customer would do if asked.
Large archives: it reads all readings with a power; run it on a copy, or a month at a time with a condition on `ts`.
"""
owner       = "planning"
duckdb      = true
---*/
WITH powers AS (
    SELECT
        a.account_id,
        coalesce(nullif(a.customer_class, ''), 'unknown') AS customer_class,
        coalesce(nullif(a.industry_code, ''), 'none') AS industry_code,
        r.meter_id,
        CAST(r.ts AT TIME ZONE 'Asia/Shanghai' AS DATE) AS local_date,
        CAST(extract(hour FROM r.ts AT TIME ZONE 'Asia/Shanghai') AS BIGINT) AS local_hour,
        TRY_CAST(r.p_kw AS DECIMAL(15, 6)) * coalesce(p.ct_ratio, 1) * coalesce(p.pt_ratio, 1) AS p_kw
    FROM meter_readings r
    JOIN customer_accounts a ON a.meter_id = r.meter_id
        AND (a.valid_from IS NULL OR a.valid_from <= r.ts) AND (a.valid_to IS NULL OR r.ts < a.valid_to)
    LEFT JOIN pq_points p ON p.meter_id = r.meter_id
        AND (p.valid_from IS NULL OR p.valid_from <= r.ts) AND (p.valid_to IS NULL OR r.ts < p.valid_to)
    WHERE r.p_kw IS NOT NULL
),
days AS (
    SELECT
        p.*,
        CAST(date_trunc('month', p.local_date) AS DATE) AS local_month,
        CASE
            WHEN h.kind = 'workday' THEN false
            WHEN h.kind = 'holiday' THEN true
            ELSE extract(dow FROM p.local_date) IN (0, 6)
        END AS is_day_off
    FROM powers p
    LEFT JOIN holidays h ON h.day = p.local_date
),
hours AS (
    SELECT
        local_month,
        customer_class,
        industry_code,
        account_id,
        meter_id,
        local_hour,
        CAST(avg(CASE WHEN NOT is_day_off THEN p_kw END) AS DECIMAL(18, 6)) AS workday_kw,
        CAST(avg(CASE WHEN is_day_off THEN p_kw END) AS DECIMAL(18, 6)) AS day_off_kw
    FROM days
    GROUP BY 1, 2, 3, 4, 5, 6
),
totals AS (
    SELECT
        local_month,
        local_hour,
        sum(workday_kw) AS all_kw,
        row_number() OVER (PARTITION BY local_month ORDER BY sum(workday_kw) DESC NULLS LAST, local_hour) AS n
    FROM hours
    GROUP BY local_month, local_hour
),
curves AS (
    SELECT
        local_month,
        customer_class,
        industry_code,
        local_hour,
        count(DISTINCT account_id) AS accounts_heard,
        sum(workday_kw) AS workday_kw,
        sum(day_off_kw) AS day_off_kw
    FROM hours
    GROUP BY 1, 2, 3, 4
),
registered AS (
    SELECT
        t.local_month,
        coalesce(nullif(a.customer_class, ''), 'unknown') AS customer_class,
        coalesce(nullif(a.industry_code, ''), 'none') AS industry_code,
        count(DISTINCT a.account_id) AS accounts
    FROM (SELECT DISTINCT local_month FROM totals) t
    JOIN customer_accounts a
        ON (a.valid_from IS NULL OR CAST(a.valid_from AT TIME ZONE 'Asia/Shanghai' AS DATE) < CAST(t.local_month + INTERVAL '1 month' AS DATE))
        AND (a.valid_to IS NULL OR CAST(a.valid_to AT TIME ZONE 'Asia/Shanghai' AS DATE) >= CAST(t.local_month + INTERVAL '1 month' AS DATE))
    GROUP BY 1, 2, 3
),
flexible AS (
    SELECT *, row_number() OVER (PARTITION BY local_month ORDER BY flexible_kw DESC, account_id, meter_id) AS place
    FROM (
        SELECT h.*, h.workday_kw - min(h.workday_kw) OVER (PARTITION BY h.local_month, h.account_id, h.meter_id) AS flexible_kw
        FROM hours h
    ) f
    JOIN (SELECT local_month AS peak_month, local_hour AS peak_hour, all_kw FROM totals WHERE n = 1) t
        ON t.peak_month = f.local_month AND t.peak_hour = f.local_hour
    WHERE f.flexible_kw > 0
),
parts AS (
    SELECT
        c.local_month,
        'curve' AS part,
        c.customer_class,
        c.industry_code,
        CAST(NULL AS VARCHAR) AS account_id,
        c.local_hour,
        t.n = 1 AS is_peak,
        c.workday_kw,
        c.day_off_kw,
        CAST(CAST(c.workday_kw AS DECIMAL(24, 6)) * 100 / nullif(t.all_kw, 0) AS DECIMAL(9, 2)) AS share_pct,
        CAST(NULL AS DECIMAL(18, 3)) AS flexible_kw,
        c.accounts_heard,
        coalesce(r.accounts, 0) AS accounts
    FROM curves c
    JOIN totals t ON t.local_month = c.local_month AND t.local_hour = c.local_hour
    LEFT JOIN registered r ON r.local_month = c.local_month AND r.customer_class = c.customer_class AND r.industry_code = c.industry_code
    UNION ALL
    SELECT
        local_month,
        'account',
        customer_class,
        industry_code,
        account_id,
        local_hour,
        true,
        workday_kw,
        day_off_kw,
        CAST(CAST(workday_kw AS DECIMAL(24, 6)) * 100 / nullif(all_kw, 0) AS DECIMAL(9, 2)),
        CAST(flexible_kw AS DECIMAL(18, 3)),
        CAST(1 AS BIGINT),
        CAST(1 AS BIGINT)
    FROM flexible
    WHERE place <= 20
)
SELECT
    local_month,
    part,
    customer_class,
    industry_code,
    account_id,
    local_hour,
    is_peak,
    CAST(workday_kw AS DECIMAL(18, 3)) AS workday_kw,
    CAST(day_off_kw AS DECIMAL(18, 3)) AS day_off_kw,
    share_pct,
    flexible_kw,
    accounts_heard,
    accounts
FROM parts
ORDER BY local_month DESC, CASE part WHEN 'curve' THEN 1 ELSE 2 END, flexible_kw DESC NULLS LAST, customer_class, industry_code, local_hour, account_id
