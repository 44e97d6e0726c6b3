/*---
id          = "rd_power_reversed"
kind        = "alert"
title       = "Active power of a phase flows backwards at a plain customer"
title_zh    = "分相功率反向"
severity    = "warning"
entity      = ["meter_id", "phase"]
category    = "integrity"
unit        = "kW"
standard    = "internal"
owner       = "metering"
description = """
Fires when the active power of a phase is below minus `reverse_kw` in two readings in a row, at a meter whose `kind`
in `meters` is `customer`: a current transformer is mounted backwards or its wires are swapped, and the energy of that
phase is subtracted instead of added; or the customer generates and is not registered for it. A reading without powers
of phases is judged by its total, as phase `total`. Resolves when the power is not below the limit; a first such
reading says nothing yet.
Keep prosumers under another `kind`. Not seen: meters that are not in `meters`, and meters that give amounts without sign.
"""
params      = { reverse_kw = 0.01 }
---*/
SELECT
    meter_id,
    phase,
    ts,
    CASE
        WHEN power_kw >= -1 * $reverse_kw THEN false
        WHEN previous_kw < -1 * $reverse_kw THEN true
    END AS firing,
    power_kw AS measured,
    -1 * $reverse_kw AS limit_low,
    'kW' AS unit,
    previous_kw
FROM (
    SELECT *, lag(power_kw) OVER (PARTITION BY meter_id, phase ORDER BY ts) AS previous_kw
    FROM rd_phases
    WHERE power_kw IS NOT NULL
) p
WHERE kind = 'customer'
