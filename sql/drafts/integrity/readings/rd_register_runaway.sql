/*---
id          = "rd_register_runaway"
kind        = "alert"
title       = "Register advanced by more energy than the connection can carry"
severity    = "critical"
entity      = "meter_id"
category    = "integrity"
unit        = "kWh"
standard    = "internal"
owner       = "metering"
description = """
Fires when the register of imported energy advanced since the previous reading by more than
`factor` * number of phases * nominal phase voltage * `max_current_a` * hours between them, plus `resolution_kwh`. A
register that runs away, a wrong multiplier or a mistransmitted value would be billed as consumption.
Number of phases and voltage come from `meters` as of the reading; `max_current_a` is that of the widest meters, so
lower it in a copy of the rule for smaller ones. For meters behind transformers the register and the current must be on
the same side. A reading below the previous one is not judged (see rd_register_rollback, rd_register_rollover), nor is a
second one of the same instant; the way back up from one reading that was too low does fire.
Not seen: excess below the limit, meters that are not in `meters`, and a step that hides in a long silence.
"""
params      = { factor = 1.2, max_current_a = 60.0, resolution_kwh = 0.01 }
---*/
SELECT
    meter_id,
    ts,
    used_kwh > limit_kwh AS firing,
    used_kwh AS measured,
    limit_kwh AS limit_high,
    'kWh' AS unit,
    seconds,
    previous_ts
FROM (
    SELECT
        r.meter_id,
        r.ts,
        r.previous_ts,
        r.seconds,
        r.register_kwh - r.previous_kwh AS used_kwh,
        CAST(
            $factor * $max_current_a * character_length(m.phases) * TRY_CAST(m.nominal_v AS DECIMAL(9, 3)) * r.seconds / 3600000
                + $resolution_kwh AS DECIMAL(24, 6)
        ) AS limit_kwh
    FROM (
        SELECT
            meter_id,
            ts,
            previous_ts,
            register_kwh,
            previous_kwh,
            TRY_CAST(extract(epoch FROM ts) - extract(epoch FROM previous_ts) AS DECIMAL(15, 3)) AS seconds
        FROM (
            SELECT
                meter_id,
                ts,
                energy_imp_kwh AS register_kwh,
                lag(energy_imp_kwh) OVER (PARTITION BY meter_id ORDER BY ts) AS previous_kwh,
                lag(ts) OVER (PARTITION BY meter_id ORDER BY ts) AS previous_ts
            FROM meter_readings
            WHERE energy_imp_kwh IS NOT NULL
        ) p
        WHERE previous_kwh IS NOT NULL
    ) r
    JOIN meters m ON m.meter_id = r.meter_id
    WHERE r.seconds > 0 AND r.register_kwh >= r.previous_kwh
) u
WHERE limit_kwh IS NOT NULL
