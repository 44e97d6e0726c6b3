/*---
id          = "pq_temporary_overvoltage"
kind        = "alert"
title       = "Temporary overvoltage above what insulation is meant for"
title_zh    = "暂时过电压"
severity    = "critical"
entity      = "meter_id"
standard    = "GB/T 18481-2001"
clause      = "4"
category    = "pq"
unit        = "pu"
owner       = "power-quality"
description = """
Swells of points from 3 kV on: highest voltage to earth per unit of the highest voltage of the equipment over the root of 3 (`um_v` of
`pq_points`), against the limit `temporary_overvoltage` of scheme `GB`: 1.1 times the root of 3 from 3 to 10 kV, the root of 3 at 35 and
66 kV, 1.3 from 110 to 220 kV. A value equal to the limit is inside. Each is an occurrence. Usual causes are earth faults, lost load and
resonance. Monitors measure it; a meter's overvoltage event is an indication. Points without `um_v` or swells without a size are not
judged, nor are transients (`transient_overvoltage`), whose peak depends on the transducer.
"""
---*/
SELECT
    o.meter_id,
    o.start_ts,
    o.per_unit AS measured,
    l.limit_high,
    'pu' AS unit,
    o.residual_pct,
    o.duration_ms,
    o.um_v,
    o.line_v,
    l.standard,
    l.clause
FROM (
    SELECT
        meter_id,
        start_ts,
        residual_pct,
        end_ms - start_ms AS duration_ms,
        um_v,
        line_v,
        TRY_CAST(TRY_CAST(residual_pct * line_v AS DECIMAL(30, 9)) / 100 / nullif(um_v, 0) AS DECIMAL(15, 6)) AS per_unit
    FROM pq_event_rows
    WHERE event_code = 'voltage_swell' AND line_v > 1000
) o
JOIN pq_limits l ON l.scheme = 'GB' AND l.quantity = 'temporary_overvoltage' AND o.line_v > l.line_v_above AND o.line_v <= l.line_v_upto
WHERE o.per_unit > l.limit_high
