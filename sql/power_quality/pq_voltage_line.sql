/*---
id          = "pq_voltage_line"
kind        = "alert"
title       = "Line voltage of a three-phase point outside +/-7 % of nominal"
title_zh    = "三相线电压偏差超限"
severity    = "warning"
entity      = ["meter_id", "phase"]
standard    = "GB/T 12325-2008"
clause      = "4.2"
category    = "pq"
unit        = "%"
owner       = "power-quality"
description = """
Deviation of each line voltage (`ab`, `bc`, `ca`) over ten minutes from the nominal line voltage of the point, against the limit
`u_line` of scheme `GB` in `pq_limits`: +/-7 % for three-phase supply up to 20 kV. A value equal to a limit is inside. Voltages are on
the primary side: secondary value times the ratio of the voltage transformer at the time of the reading. Critical beyond
`critical_pct`. This is the rule for points of three wires, which have no phase voltage; single-phase supply is judged by
pq_voltage_deviation, 35 kV and above by pq_voltage_range. An interval that pq_readings leaves out says nothing. Below `dead_pct` of
nominal it is an outage or a blown fuse, not a deviation, and says nothing either.
"""
params      = { critical_pct = 10.0, dead_pct = 50.0 }
---*/
SELECT
    v.meter_id,
    v.phase,
    v.window_start,
    v.window_end,
    CASE WHEN NOT v.left_out AND 100 * v.value >= $dead_pct * v.base THEN
        100 * v.value > v.base * (100 + l.limit_high) OR 100 * v.value < v.base * (100 + l.limit_low)
    END AS firing,
    CASE WHEN abs(100 * v.value - 100 * v.base) > $critical_pct * v.base THEN 'critical' ELSE 'warning' END AS severity,
    TRY_CAST((v.value - v.base) * 100 / nullif(v.base, 0) AS DECIMAL(18, 6)) AS measured,
    l.limit_low,
    l.limit_high,
    l.unit,
    v.value AS voltage_v,
    v.base AS nominal_v,
    v.flagged,
    v.flag_policy,
    CASE v.basis_rank WHEN 3 THEN 'class_a' WHEN 2 THEN 'aggregated' ELSE 'instant' END AS basis,
    l.standard,
    l.clause
FROM pq_intervals v
JOIN pq_limits l ON l.scheme = 'GB' AND l.quantity = 'u_line' AND v.line_v > l.line_v_above AND v.line_v <= l.line_v_upto
WHERE v.quantity = 'u_line'
