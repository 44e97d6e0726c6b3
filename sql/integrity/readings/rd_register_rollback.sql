/*---
id            = "rd_register_rollback"
kind          = "alert"
title         = "Register lower than at the reading before"
title_zh      = "示度下降"
severity      = "critical"
entity        = ["meter_id", "register"]
category      = "integrity"
standard      = "DL/T 698.45-2017"
clause        = "event object 310B (register decreased)"
owner         = "metering"
resolve_after = 4
description   = """
Fires when a register stands lower than at the previous reading of the meter by more than half of `resolution`, and the
step is neither a rollover nor an exchange of the meter (see rd_register_steps). A register that went back was reset,
exchanged without notice, mistransmitted or tampered with, and every bill across the step is wrong. Resolves after four
readings in order. Readings without the value are passed over, a second reading of one instant is not judged (see
rd_duplicate). To silence it after an exchange, give the meter a new row in `meter_installations` from that instant on.
Not seen: a register that went back and passed its old value between two readings.
"""
params        = { resolution = 0.01 }
---*/
SELECT
    meter_id,
    register,
    ts,
    CASE WHEN step <> 'repeat' THEN step = 'rollback' AND value < previous_value - $resolution / 2 END AS firing,
    value AS measured,
    CAST(previous_value - $resolution / 2 AS DECIMAL(24, 6)) AS limit_low,
    unit,
    step,
    previous_value,
    previous_ts
FROM rd_register_steps
