/*---
id          = "pq_supply_lost"
kind        = "alert"
title       = "Supply of a point is lost"
title_zh    = "监测点失电"
severity    = "critical"
entity      = "meter_id"
standard    = "EN 50160:2010"
clause      = "3.8, 4.2.2"
category    = "pq"
owner       = "power-quality"
description = """
Opens with the last message of a meter (`power_off`) or an interruption of all phases that has no end yet, and resolves with `power_on` or
an interruption that has one. A dead meter cannot report: without either message it is silent, see the rules on silent meters. An
interruption of single phases of a three-phase point does not open, as the supply is not lost. Meters of all kinds are watched, also
those that are not in `pq_points`. Rows that come long after do not matter: a `power_on` that comes before its `power_off` leaves the
alert open until the next. How long it lasted is in pq_outages.
"""
---*/
SELECT
    e.meter_id,
    e.start_ts,
    CASE
        WHEN e.event_code = 'power_off' THEN true
        WHEN e.event_code = 'power_on' THEN false
        WHEN e.end_ts IS NOT NULL OR e.duration_ms IS NOT NULL THEN false
        WHEN coalesce(e.phase, '') IN ('', 'abc') OR p.wiring = '1P2W' THEN true
    END AS firing,
    e.event_code,
    e.phase,
    p.feeder,
    p.customers
FROM meter_events e
LEFT JOIN pq_points p ON p.meter_id = e.meter_id
WHERE e.event_code IN ('power_off', 'power_on', 'interruption')
