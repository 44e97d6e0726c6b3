/*---
id          = "rd_power_reversed"
kind        = "alert"
title       = "Active power of a phase flows backwards at a plain customer"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "kW"
standard    = "internal"
owner       = "metering"
description = """
Fires when the active power of one phase is below minus `reverse_kw` in two readings in a row, at a meter whose `kind`
in `meters` is `customer`: a current transformer is mounted backwards or its wires are swapped, and the energy of that
phase is subtracted instead of added; or the customer generates and is not registered for it. A reading without powers
of phases is judged by its total. `measured` is the lowest power of the reading; `reversed_phases` names the phases.
Resolves when no power of a reading is below the limit; a first such reading says nothing yet.
Keep prosumers under another `kind`. Not seen: meters that are not in `meters`, and meters that give amounts without sign.
"""
params      = { reverse_kw = 0.01 }
---*/
SELECT
    r.meter_id,
    r.ts,
    CASE
        WHEN back_a OR back_b OR back_c OR back_total THEN true
        WHEN lowest_kw >= -1 * $reverse_kw THEN false
    END AS firing,
    r.lowest_kw AS measured,
    -1 * $reverse_kw AS limit_low,
    'kW' AS unit,
    concat(
        CASE WHEN back_a THEN 'a' ELSE '' END,
        CASE WHEN back_b THEN 'b' ELSE '' END,
        CASE WHEN back_c THEN 'c' ELSE '' END
    ) AS reversed_phases
FROM (
    SELECT
        meter_id,
        ts,
        coalesce(p_a < -1 * $reverse_kw AND previous_a < -1 * $reverse_kw, false) AS back_a,
        coalesce(p_b < -1 * $reverse_kw AND previous_b < -1 * $reverse_kw, false) AS back_b,
        coalesce(p_c < -1 * $reverse_kw AND previous_c < -1 * $reverse_kw, false) AS back_c,
        coalesce(total < -1 * $reverse_kw AND previous_total < -1 * $reverse_kw, false) AS back_total,
        least(p_a, p_b, p_c, total) AS lowest_kw
    FROM (
        SELECT
            meter_id,
            ts,
            TRY_CAST(p_a_kw AS DECIMAL(15, 6)) AS p_a,
            TRY_CAST(p_b_kw AS DECIMAL(15, 6)) AS p_b,
            TRY_CAST(p_c_kw AS DECIMAL(15, 6)) AS p_c,
            CASE WHEN coalesce(p_a_kw, p_b_kw, p_c_kw) IS NULL THEN TRY_CAST(p_kw AS DECIMAL(15, 6)) END AS total,
            TRY_CAST(lag(p_a_kw) OVER w AS DECIMAL(15, 6)) AS previous_a,
            TRY_CAST(lag(p_b_kw) OVER w AS DECIMAL(15, 6)) AS previous_b,
            TRY_CAST(lag(p_c_kw) OVER w AS DECIMAL(15, 6)) AS previous_c,
            TRY_CAST(lag(p_kw) OVER w AS DECIMAL(15, 6)) AS previous_total
        FROM meter_readings
        WHERE p_a_kw IS NOT NULL OR p_b_kw IS NOT NULL OR p_c_kw IS NOT NULL OR p_kw IS NOT NULL
        WINDOW w AS (PARTITION BY meter_id ORDER BY ts)
    ) p
) r
JOIN meters m ON m.meter_id = r.meter_id
WHERE m.kind = 'customer' AND r.lowest_kw IS NOT NULL
