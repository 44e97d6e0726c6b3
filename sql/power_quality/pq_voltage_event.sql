/*---
id          = "pq_voltage_event"
kind        = "alert"
title       = "Voltage dip, swell or interruption"
title_zh    = "电压暂降、暂升或中断"
severity    = "warning"
entity      = ["meter_id", "kind"]
standard    = "IEC 61000-4-30:2015"
clause      = "5.4, 5.5"
category    = "pq"
unit        = "%"
owner       = "power-quality"
description = """
Each event of pq_supply_events is an occurrence, told once: critical for an interruption and for a dip to less than `critical_residual_pct` of
the declared voltage, at which motors and drives drop out. Events within a minute of the one before are not told again. Single dips
are unavoidable; silence a point that has many of them by its `counted` rows in that table, where their cells show what kind they are.
Told an hour after the event at the latest (the delay of pq_event_rows); a loss of supply that lasts is told at once by pq_supply_lost.
"""
params      = { critical_residual_pct = 70.0 }
---*/
SELECT
    meter_id,
    kind,
    start_ts,
    CASE WHEN kind = 'interruption' OR (kind = 'dip' AND residual_pct < $critical_residual_pct) THEN 'critical' ELSE 'warning' END AS severity,
    residual_pct AS measured,
    '%' AS unit,
    depth_pct,
    duration_ms,
    cell,
    event_phases,
    n_rows,
    feeder
FROM pq_supply_events
WHERE counted
