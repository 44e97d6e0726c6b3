/*---
id          = "tx_duplicate_work_order"
kind        = "alert"
title       = "Same work opened again at a service point"
title_zh    = "同一用电地点重复工单"
severity    = "info"
version     = "2"
entity      = ["case_id", "process_type", "earlier_case_id"]
category    = "business"
standard    = "internal"
owner       = "customer service"
description = """
Fires for a case that is opened (a `first` step of its process in `workflow_steps`) while another of the same process at
the same service point was opened within `within` before, that included, and not closed since (a `last` or `aborted`
step): two crews for one job. Of two at one instant the one with the larger `case_id` fires. Cases without a service
point, or of a process that is not in the table, are not judged. Jobs are the same if their `process_type` and the
attribute `work_type` of their first steps are; without that attribute all jobs of a process are one kind.
"""
params      = { within = "7 days" }
---*/
WITH opened AS (
    SELECT
        b.case_id,
        b.process_type,
        coalesce(b.attrs['work_type'], '') AS work_type,
        b.service_point_id,
        b.event_ts,
        b.customer_id,
        b.org_id
    FROM business_transactions b
    JOIN workflow_steps f ON f.process_type = b.process_type AND f.step = b.step AND f.kind = 'first'
    WHERE b.service_point_id IS NOT NULL
),
closed AS (
    SELECT b.case_id, b.process_type, b.event_ts
    FROM business_transactions b
    JOIN workflow_steps e
        ON e.process_type = b.process_type AND e.step = b.step AND e.kind IN ('last', 'aborted')
),
pairs AS (
    SELECT
        b.case_id,
        a.case_id AS earlier_case_id,
        b.event_ts,
        a.event_ts AS earlier_ts,
        b.process_type,
        b.work_type,
        b.service_point_id,
        b.customer_id,
        b.org_id,
        a.org_id AS earlier_org_id
    FROM opened b
    JOIN opened a
        ON a.service_point_id = b.service_point_id AND a.process_type = b.process_type AND a.work_type = b.work_type
        AND a.event_ts BETWEEN b.event_ts - INTERVAL $within AND b.event_ts
    WHERE a.case_id <> b.case_id AND (a.event_ts < b.event_ts OR a.case_id < b.case_id)
)
SELECT *
FROM pairs p
WHERE NOT EXISTS (
    SELECT 1
    FROM closed c
    WHERE c.case_id = p.earlier_case_id AND c.process_type = p.process_type
        AND c.event_ts BETWEEN p.event_ts - INTERVAL $within AND p.event_ts
        AND c.event_ts >= p.earlier_ts
)
