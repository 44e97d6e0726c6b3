/*---
id          = "rd_tamper_events"
kind        = "alert"
title       = "Meter recorded an event that may be tampering"
title_zh    = "开盖、强磁、编程等窃电嫌疑事件"
severity    = "critical"
entity      = ["meter_id", "event_code"]
category    = "integrity"
standard    = "DL/T 698.45-2017"
clause      = "event records of the meter"
owner       = "metering"
late        = "update"
description = """
Each event of the stream `meter_events` whose code the reference table `meter_event_codes` marks with `kind` = `tamper` is
one occurrence, with the severity of that row: cover or terminal cover opened, strong magnetic field, programming, wrong
key, and what else the table says. Events are read out hours or days after they happened; those are told too. To be
compared with work orders (`operator_id` says who did it, if somebody did), and to be counted for a suspicion of theft.
Silence a code by ending its row.
Not seen: what the meter does not record, and whether a visit was planned.
"""
---*/
SELECT
    e.meter_id,
    e.event_code,
    e.start_ts,
    c.severity,
    c.title AS event_title,
    e.end_ts,
    e.phase,
    e.service_point_id,
    e.operator_id,
    e.event_id,
    c.standard AS code_standard,
    c.edition AS code_edition,
    c.clause AS code_clause
FROM meter_events e
JOIN meter_event_codes c ON c.event_code = e.event_code
WHERE c.kind = 'tamper'
