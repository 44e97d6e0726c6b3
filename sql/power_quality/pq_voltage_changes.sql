/*---
id          = "pq_voltage_changes"
kind        = "alert"
title       = "Voltage changes larger than their number in an hour allows"
title_zh    = "电压变动超过频度对应限值"
severity    = "info"
entity      = "meter_id"
standard    = "GB/T 12326-2008"
clause      = "4, table 1"
category    = "pq"
unit        = "%"
owner       = "power-quality"
description = """
Changes of the rms voltage (events `voltage_change`) of an hour: the more there are, the smaller each may be. The largest of the hour
(`delta_max_pct`, in percent of nominal) is held against the limit `voltage_change` of scheme `GB` for that number: up to 35 kV 4 % for
one an hour, 3 % for up to 10, 2 % for up to 100, 1.25 % for up to 1000; above 35 kV 3, 2, 1.5 and 1 %. A value equal to the limit is
inside. An hour in which the point reports readings and no change resolves. More than 1000 changes an hour are flicker: no verdict
(`firing` is null). An event without a size counts but cannot be judged. Causes are motors, welders, furnaces and switched capacitors.
"""
---*/
SELECT
    c.meter_id,
    c.window_start,
    c.window_end,
    CASE WHEN c.changes = 0 THEN false ELSE c.largest_pct > l.limit_high END AS firing,
    c.largest_pct AS measured,
    l.limit_high,
    '%' AS unit,
    c.changes,
    c.changes_without_size,
    l.standard,
    l.clause
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        line_v,
        sum(changes) AS changes,
        sum(changes) FILTER (WHERE delta_pct IS NULL) AS changes_without_size,
        max(delta_pct) AS largest_pct
    FROM TUMBLE(
        (
            SELECT meter_id, start_ts AS at, line_v, 1 AS changes, delta_max_pct AS delta_pct
            FROM pq_event_rows
            WHERE direction = 'change'
            UNION ALL
            SELECT meter_id, ts AS at, line_v, 0 AS changes, CAST(NULL AS DECIMAL(12, 6)) AS delta_pct
            FROM pq_readings
        ),
        at,
        INTERVAL '1 hour'
    )
    GROUP BY meter_id, window_start, window_end, line_v
) c
LEFT JOIN pq_limits l ON l.scheme = 'GB' AND l.quantity = 'voltage_change' AND c.line_v > l.line_v_above AND c.line_v <= l.line_v_upto
    AND c.changes >= l.given_from AND c.changes < l.given_below
