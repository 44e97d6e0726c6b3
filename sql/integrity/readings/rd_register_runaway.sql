/*---
id          = "rd_register_runaway"
kind        = "alert"
title       = "Register advanced by more energy than the meter can carry"
title_zh    = "示度飞走"
severity    = "critical"
entity      = ["meter_id", "register"]
category    = "integrity"
standard    = "DL/T 698.45-2017"
clause      = "event object 310D (register runs away); the threshold is internal"
owner       = "metering"
description = """
Fires when a register advanced since the previous reading by more than
`factor` * number of phases * nominal phase voltage * maximum current * hours between them, plus `resolution`. A
register that runs away, a wrong multiplier or a mistransmitted value would be billed as consumption.
Number of phases and voltage come from `meters`, the maximum current from `meter_installations`, as of the reading. For
meters behind transformers the register and the current must be on the same side. A step that is not an advance or a
rollover is not judged (see rd_register_steps); the way back up from one reading that was too low does fire. Resolves
with the next step inside.
Not seen: excess below the limit, meters that are not in `meters` or have no maximum current, and a step that hides in a
long silence.
"""
params      = { factor = 1.2, resolution = 0.01 }
---*/
SELECT
    meter_id,
    register,
    ts,
    used > limit_high AS firing,
    used AS measured,
    limit_high,
    unit,
    seconds,
    previous_ts
FROM (
    SELECT
        s.meter_id,
        s.register,
        s.ts,
        s.used,
        s.unit,
        s.seconds,
        s.previous_ts,
        CAST(
            $factor * TRY_CAST(i.max_a AS DECIMAL(9, 3)) * character_length(m.phases)
                * TRY_CAST(m.nominal_v AS DECIMAL(9, 3)) * s.seconds / 3600000 + $resolution
            AS DECIMAL(24, 6)
        ) AS limit_high
    FROM rd_register_steps s
    JOIN meters m ON m.meter_id = s.meter_id
    JOIN meter_installations i ON i.meter_id = s.meter_id
    WHERE s.used IS NOT NULL
) u
WHERE limit_high IS NOT NULL
