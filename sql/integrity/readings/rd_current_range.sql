/*---
id          = "rd_current_range"
kind        = "alert"
title       = "Current of a phase above what the meter can measure"
title_zh    = "电流超出量程"
severity    = "warning"
entity      = ["meter_id", "phase"]
category    = "integrity"
unit        = "A"
standard    = "internal"
owner       = "metering"
description = """
Fires when the current of a phase exceeds `range_pct` of the maximum current of the meter (`max_a` of
`meter_installations`, as of the reading): a wrong scale or ratio, or a connection that burns the meter. A value equal to
the limit is inside; the first one inside resolves. The other values that cannot be are those of rd_out_of_range.
For meters behind current transformers `max_a` and the currents must be on the same side.
Not seen: meters that are not in `meters` or have no maximum current in `meter_installations`.
"""
params      = { range_pct = 150.0 }
---*/
SELECT
    meter_id,
    phase,
    ts,
    current_a > limit_high AS firing,
    current_a AS measured,
    limit_high,
    'A' AS unit,
    max_a
FROM (SELECT *, CAST(max_a * $range_pct / 100 AS DECIMAL(18, 6)) AS limit_high FROM rd_phases) p
WHERE current_a IS NOT NULL AND limit_high IS NOT NULL
