/*---
id          = "rd_voltage_missing"
kind        = "alert"
title       = "Reading arrived without the voltage of a phase that the meter has"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
standard    = "internal"
owner       = "metering"
description = """
Each such reading is one occurrence. The phases of a meter come from the reference table `meters` (`phases`, for example
`a` or `abc`) as of the reading's time. Freeze and event records carry no voltage by nature and are left out.
A reading that never arrived is not seen here.
"""
---*/
SELECT
    r.meter_id,
    r.ts,
    concat(
        CASE WHEN strpos(m.phases, 'a') > 0 AND r.u_a_v IS NULL THEN 'a' ELSE '' END,
        CASE WHEN strpos(m.phases, 'b') > 0 AND r.u_b_v IS NULL THEN 'b' ELSE '' END,
        CASE WHEN strpos(m.phases, 'c') > 0 AND r.u_c_v IS NULL THEN 'c' ELSE '' END
    ) AS missing_phases,
    m.phases
FROM meter_readings r
JOIN meters m ON m.meter_id = r.meter_id
WHERE coalesce(r.reading_kind, 'instant') IN ('instant', 'interval')
    AND (
        (strpos(m.phases, 'a') > 0 AND r.u_a_v IS NULL)
        OR (strpos(m.phases, 'b') > 0 AND r.u_b_v IS NULL)
        OR (strpos(m.phases, 'c') > 0 AND r.u_c_v IS NULL)
    )
