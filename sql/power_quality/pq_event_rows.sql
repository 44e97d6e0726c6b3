/*---
id          = "pq_event_rows"
kind        = "view"
title       = "Dips, swells, interruptions and voltage changes of registered points, as their devices recorded them"
title_zh    = "电压事件记录(装置上报)"
standard    = "IEC 61000-4-30:2015"
clause      = "5.4, 5.5"
category    = "pq"
owner       = "power-quality"
delay       = "1 hour"
description = """
Rows of `meter_events` with codes `voltage_dip`, `voltage_swell`, `interruption` and `voltage_change` of points in `pq_points`. When an
event begins and ends is decided by the device, with its thresholds and hysteresis. The end is that of the row, else its start and
duration; while it lasts there is none. `direction` is `under` for dips and interruptions, `over` for swells, `change` for voltage
changes. `lost_*` says that a phase was without voltage: the row is an interruption, or a dip of that phase alone below
`interruption_pct` of the declared voltage. A row without a phase speaks of all.
A size below 0 or above `max_residual_pct` is none. The event time is the start, and rows often come when
it is over, so the delay is an hour: what is reported later is in the raw table only, and in pq_outages if it was a loss of supply.
"""
params      = { interruption_pct = 5.0, max_residual_pct = 1000.0 }
---*/
SELECT
    meter_id,
    start_ts,
    direction,
    event_code,
    feeder,
    customers,
    line_v,
    um_v,
    phases,
    residual_pct,
    delta_ss_pct,
    delta_max_pct,
    start_ms,
    end_ms,
    CASE WHEN on_a THEN 1 ELSE 0 END AS on_a,
    CASE WHEN on_b THEN 1 ELSE 0 END AS on_b,
    CASE WHEN on_c THEN 1 ELSE 0 END AS on_c,
    CASE WHEN lost AND on_a THEN 1 ELSE 0 END AS lost_a,
    CASE WHEN lost AND on_b THEN 1 ELSE 0 END AS lost_b,
    CASE WHEN lost AND on_c THEN 1 ELSE 0 END AS lost_c,
    CASE WHEN lost THEN start_ms END AS lost_start_ms,
    CASE WHEN lost THEN end_ms END AS lost_end_ms
FROM (
    SELECT
        *,
        coalesce(
            event_code = 'interruption'
                OR (event_code = 'voltage_dip' AND residual_pct < $interruption_pct AND (phases = 1 OR character_length(phase) = 1)),
            false
        ) AS lost,
        strpos(phase, 'a') > 0 AS on_a,
        strpos(phase, 'b') > 0 AS on_b,
        strpos(phase, 'c') > 0 AS on_c,
        coalesce(recorded_end_ms, start_ms + duration_ms) AS end_ms
    FROM (
        SELECT
            e.meter_id,
            e.start_ts,
            e.event_code,
            CASE e.event_code WHEN 'voltage_swell' THEN 'over' WHEN 'voltage_change' THEN 'change' ELSE 'under' END AS direction,
            p.feeder,
            p.customers,
            p.line_v,
            p.um_v,
            CASE p.wiring WHEN '1P2W' THEN 1 ELSE 3 END AS phases,
            CASE WHEN e.phase IS NULL OR e.phase = '' THEN 'abc' ELSE lower(e.phase) END AS phase,
            CASE WHEN TRY_CAST(e.residual_pct AS DECIMAL(12, 6)) BETWEEN 0 AND $max_residual_pct THEN TRY_CAST(e.residual_pct AS DECIMAL(12, 6)) END
                AS residual_pct,
            TRY_CAST(e.delta_ss_pct AS DECIMAL(12, 6)) AS delta_ss_pct,
            TRY_CAST(e.delta_max_pct AS DECIMAL(12, 6)) AS delta_max_pct,
            -- A year at most: the register of a device that counts wrong must not stop the rule.
            CASE WHEN e.duration_ms BETWEEN 0 AND 31536000000 THEN e.duration_ms END AS duration_ms,
            CAST(round(extract(epoch FROM e.start_ts) * 1000) AS BIGINT) AS start_ms,
            CAST(round(extract(epoch FROM e.end_ts) * 1000) AS BIGINT) AS recorded_end_ms
        FROM meter_events e
        JOIN pq_points p ON p.meter_id = e.meter_id
        WHERE e.event_code IN ('voltage_dip', 'voltage_swell', 'interruption', 'voltage_change')
    ) r
) n
