/*---
id          = "rd_register_rollover"
kind        = "alert"
title       = "Register rolled over"
title_zh    = "示度翻转"
severity    = "info"
entity      = ["meter_id", "register"]
category    = "integrity"
standard    = "internal"
owner       = "metering"
description = """
Each rollover is one occurrence: the previous reading of the meter stood in the last tenth of the register, this one
stands in the first. `used` is the energy across the step. It is no fault, but whoever subtracts two readings across this
instant must add `range_end`, the value at which the register starts again from zero: 1,000,000 for the six digits of
`meter_installations`.
A reset to zero near the end of the register looks the same; compare `used` with the usual energy of the meter.
Not seen: a rollover during a silence in which the register left its first tenth again.
"""
---*/
SELECT
    meter_id,
    register,
    ts,
    value AS measured,
    unit,
    previous_value,
    previous_ts,
    range_end,
    used,
    used_primary
FROM rd_register_steps
WHERE step = 'rollover'
