/*---
id          = "tx_sla_marks"
kind        = "view"
title       = "Steps that start or stop a clock of the table sla"
title_zh    = "时限起止环节"
version     = "1.1"
category    = "business"
standard    = "internal"
owner       = "customer service"
description = """
One row for each step and each line of `sla` whose clock it starts (`starts`) or stops. A line is for a process, a
`step` that starts the clock, an `until_step` that stops it (empty: any other step) and a `class` of case (empty: all),
which the starting step carries in its attribute `sla_class`. Of two lines for the same steps that of the class goes
before the general one, also if it has no limit. Limits are in working days or in minutes. A step that ends the process
(`last` or `aborted` in `workflow_steps`) stops all clocks of the case. A clock takes class and limit of the moment it
starts: `due_date` is the last day, counted from the day after the start in the zone `zone`; `deadline_ts` the instant
after which it is broken (the end of that day, or the start and so many minutes); `warn_ts` that at which `warn_share`
of it is used up, in whole days rounded down. A step that would start a clock that has run for less than `within`
already does not start it again, whatever its class. Time in which a case waits for the customer is not taken off.
"""
params      = { zone = "Asia/Shanghai", within = "180 days" }
---*/
WITH marks AS (
    SELECT
        b.case_id,
        b.event_ts,
        b.step = l.step AS starts,
        b.process_type,
        l.step,
        coalesce(l.until_step, '') AS until_step,
        coalesce(l.class, '') AS class,
        b.step AS marked_by,
        l.limit_working_days,
        l.limit_minutes,
        l.warn_share,
        l.standard,
        b.org_id,
        b.customer_id
    FROM business_transactions b
    LEFT JOIN workflow_steps e
        ON e.process_type = b.process_type AND e.step = b.step AND e.kind IN ('last', 'aborted')
    JOIN sla l
        ON l.process_type = b.process_type
        AND (
            (b.step = l.step AND (coalesce(l.class, '') = '' OR l.class = b.attrs['sla_class']))
            OR (
                b.step <> l.step
                AND (coalesce(l.until_step, '') = '' OR l.until_step = b.step OR e.step IS NOT NULL)
            )
        )
    -- The line of the case's class, for the same steps as this general one.
    LEFT JOIN sla o
        ON o.process_type = l.process_type
        AND o.step = l.step
        AND coalesce(o.until_step, '') = coalesce(l.until_step, '')
        AND o.class = b.attrs['sla_class']
        AND o.class <> ''
        AND coalesce(l.class, '') = ''
    WHERE b.step <> l.step OR o.class IS NULL
),
clocks AS (
    SELECT
        *,
        CAST(event_ts AT TIME ZONE $zone AS DATE) AS start_date,
        last_value(starts) OVER (
            PARTITION BY case_id, process_type, step, until_step
            ORDER BY event_ts
            RANGE BETWEEN INTERVAL $within PRECEDING AND INTERVAL '1 microsecond' PRECEDING
        ) AS runs_already
    FROM marks
),
days AS (
    SELECT
        k.*,
        add_working_days(k.start_date, k.limit_working_days, c.days_off, c.days_worked) AS due_date,
        add_working_days(
            k.start_date,
            CAST(floor(k.limit_working_days * k.warn_share) AS BIGINT),
            c.days_off,
            c.days_worked
        ) AS warn_date
    FROM clocks k
    CROSS JOIN tx_calendar c
    WHERE NOT k.starts OR NOT coalesce(k.runs_already, FALSE)
)
SELECT
    case_id,
    event_ts,
    starts,
    process_type,
    step,
    until_step,
    class,
    marked_by,
    limit_working_days,
    limit_minutes,
    start_date,
    due_date,
    CASE
        WHEN limit_working_days IS NOT NULL THEN
            arrow_cast(
                CAST(due_date + INTERVAL '1 day' AS TIMESTAMP) AT TIME ZONE $zone, 'Timestamp(Microsecond, Some("UTC"))'
            )
        ELSE event_ts + CAST(limit_minutes || ' minutes' AS INTERVAL)
    END AS deadline_ts,
    CASE
        WHEN limit_working_days IS NOT NULL THEN
            arrow_cast(
                CAST(warn_date + INTERVAL '1 day' AS TIMESTAMP) AT TIME ZONE $zone, 'Timestamp(Microsecond, Some("UTC"))'
            )
        ELSE event_ts + CAST(CAST(limit_minutes * 60 * warn_share AS BIGINT) || ' seconds' AS INTERVAL)
    END AS warn_ts,
    standard,
    org_id,
    customer_id
FROM days
