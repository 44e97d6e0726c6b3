/*---
id          = "sec_meter_write_without_order"
kind        = "alert"
title       = "Meter configuration written without a work order"
title_zh    = "无工单写入电能表参数"
severity    = "critical"
entity      = "meter_id"
category    = "security"
standard    = "internal"
owner       = "security"
description = """
One occurrence for each `config_write` to a meter that names no work order (`verdict` is `no_ticket`), or one of which no
step with a fitting meter was seen from `within` before until `after` behind it (`order_unknown`). An order fits if its
case is the ticket, its process matches `processes`, and it names this meter or none. Writes that failed or were denied
are left out. Tells when `after` has passed, as the order may be entered late. The watermark is that of the slower of
both streams. Not seen: an order that exists but asks for something else, and writes on the spot, which are
sec_meter_programmed_locally.
"""
[params]
processes = "^(work_order|meter_read|new_connection|capacity_change|disconnect|reconnect|complaint)$"
within    = "30 days"
after     = "1 hour"
---*/
SELECT
    coalesce(w.resource_id, 'unknown') AS meter_id,
    w.ts,
    CASE WHEN w.ticket_id IS NULL THEN 'no_ticket' ELSE 'order_unknown' END AS verdict,
    w.ticket_id,
    w.actor_id,
    w.actor_role,
    w.system,
    w.client_ip,
    w.old_value,
    w.new_value
FROM sec_actions w
WHERE w.action = 'config_write' AND w.resource_type = 'meter' AND coalesce(w.outcome, 'success') = 'success'
    AND NOT EXISTS (
        SELECT 1
        FROM business_transactions o
        WHERE o.case_id = w.ticket_id AND regexp_like(o.process_type, $processes)
            AND coalesce(o.meter_id, w.resource_id) = w.resource_id
            AND o.event_ts BETWEEN w.ts - INTERVAL $within AND w.ts + INTERVAL $after
    )
