/*---
id          = "an_tamper_events"
kind        = "alert"
title       = "Meter opened, or held in a magnetic field, without a work order"
title_zh    = "无工单的开盖或磁场干扰事件"
severity    = "critical"
entity      = "meter_id"
category    = "anomaly"
standard    = "internal"
owner       = "analytics"
description = """
One occurrence for each event of a meter whose code matches `codes` (cover, terminal cover, magnetic field) without a step
of a work order that names the meter, or its service point, from `within` before until `after` behind. `after_outage` says
that the supply of the meter was off within ten minutes before, when covers are opened most quietly. Tells when `after` has
passed. Not seen: a meter whose clock is wrong by more than that; one that was cut off before it was opened.
"""
[params]
codes     = "^(cover_open|terminal_cover_open|magnetic_field|module_removed|seal_broken)$"
processes = "^(work_order|new_connection|capacity_change|disconnect|reconnect|complaint)$"
within    = "1 day"
after     = "4 hours"
---*/
SELECT
    e.meter_id,
    e.start_ts,
    e.event_code,
    e.after_outage,
    e.duration_ms,
    e.service_point_id,
    e.source
FROM (
    SELECT
        meter_id,
        start_ts,
        lower(trim(event_code)) AS event_code,
        duration_ms,
        service_point_id,
        source,
        count(*) FILTER (WHERE lower(trim(event_code)) IN ('power_off', 'interruption')) OVER (
            PARTITION BY meter_id ORDER BY start_ts RANGE INTERVAL '10 minutes' PRECEDING
        ) > 0 AS after_outage
    FROM meter_events
) e
WHERE regexp_like(e.event_code, $codes)
    AND NOT EXISTS (
        SELECT 1
        FROM business_transactions o
        WHERE o.meter_id = e.meter_id AND regexp_like(o.process_type, $processes)
            AND o.event_ts BETWEEN e.start_ts - INTERVAL $within AND e.start_ts + INTERVAL $after
    )
    AND NOT EXISTS (
        SELECT 1
        FROM business_transactions o
        WHERE o.service_point_id = e.service_point_id AND regexp_like(o.process_type, $processes)
            AND o.event_ts BETWEEN e.start_ts - INTERVAL $within AND e.start_ts + INTERVAL $after
    )
