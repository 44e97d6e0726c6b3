/*---
id          = "tx_duplicate_work_order"
kind        = "alert"
title       = "Same work opened again at a service point"
severity    = "info"
entity      = ["case_id", "earlier_case_id"]
category    = "business"
standard    = "internal"
owner       = "customer service"
description = """
Fires for a case that is opened (a step that matches `open_steps`) while another of the same process at the same service
point was opened within `within` before, that included, and not closed since (a step that matches `close_steps`): two
crews for one job. Of two at one instant the one with the larger `case_id` fires. Cases without a service point are not
judged. Processes are compared by `process_type` only: two different jobs under `work_order` at one point are told as
one.
"""
[params]
open_steps    = "^(apply|open|opened|create|created|register|registered)$"
close_steps   = "^(archive|archived|close|closed|complete|completed|cancel|cancelled)$"
within        = "7 days"
---*/
WITH opened AS (
    SELECT case_id, process_type, service_point_id, event_ts, customer_id, org_id
    FROM business_transactions
    WHERE regexp_like(step, $open_steps) AND service_point_id IS NOT NULL
),
pairs AS (
    SELECT
        b.case_id,
        a.case_id AS earlier_case_id,
        b.event_ts,
        a.event_ts AS earlier_ts,
        b.process_type,
        b.service_point_id,
        b.customer_id,
        b.org_id,
        a.org_id AS earlier_org_id
    FROM opened b
    JOIN opened a
        ON a.service_point_id = b.service_point_id AND a.process_type = b.process_type
        AND a.event_ts BETWEEN b.event_ts - INTERVAL $within AND b.event_ts
    WHERE a.case_id <> b.case_id AND (a.event_ts < b.event_ts OR a.case_id < b.case_id)
)
SELECT *
FROM pairs p
WHERE NOT EXISTS (
    SELECT 1
    FROM business_transactions c
    WHERE c.case_id = p.earlier_case_id AND regexp_like(c.step, $close_steps)
        AND c.event_ts BETWEEN p.event_ts - INTERVAL $within AND p.event_ts
        AND c.event_ts >= p.earlier_ts
)
