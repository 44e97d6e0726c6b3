/*---
id          = "sec_meter_programmed_locally"
kind        = "alert"
title       = "Meter says it was programmed, and nothing here did it"
title_zh    = "电能表被就地编程且无记录"
severity    = "critical"
entity      = "meter_id"
category    = "security"
standard    = "internal"
owner       = "security"
description = """
One occurrence for each event of a meter whose code matches `codes` (programming, clock setting, new registers) without a
successful `config_write` to it from `within` before until `within` behind, and without a step of a work order that names
the meter or its service point within `order_within` before. Somebody was at the meter with a programmer. The clock of
the meter gives the time of the event, so `within` has to be larger than its error. Tells when `within` has passed.
Not seen: programming that the meter does not record, and what was changed.
"""
[params]
codes        = "^(programming|clock_set|register_reset|demand_reset)$"
processes    = "^(work_order|new_connection|capacity_change|disconnect|reconnect|complaint)$"
within       = "30 minutes"
order_within = "7 days"
---*/
SELECT e.meter_id, e.start_ts, e.event_code, e.operator_id, e.service_point_id, e.value_before, e.value_after, e.source
FROM meter_events e
WHERE regexp_like(lower(trim(e.event_code)), $codes)
    AND NOT EXISTS (
        SELECT 1
        FROM sec_actions w
        WHERE w.resource_id = e.meter_id AND w.action = 'config_write' AND coalesce(w.outcome, 'success') = 'success'
            AND w.ts BETWEEN e.start_ts - INTERVAL $within AND e.start_ts + INTERVAL $within
    )
    AND NOT EXISTS (
        SELECT 1
        FROM business_transactions o
        WHERE o.meter_id = e.meter_id AND regexp_like(o.process_type, $processes)
            AND o.event_ts BETWEEN e.start_ts - INTERVAL $order_within AND e.start_ts
    )
    AND NOT EXISTS (
        SELECT 1
        FROM business_transactions o
        WHERE o.service_point_id = e.service_point_id AND regexp_like(o.process_type, $processes)
            AND o.event_ts BETWEEN e.start_ts - INTERVAL $order_within AND e.start_ts
    )
