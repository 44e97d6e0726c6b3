/*---
id          = "rd_phase_sequence"
kind        = "alert"
title       = "Phases of a meter are connected in the wrong order"
title_zh    = "电压逆相序"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "deg"
standard    = "internal"
owner       = "metering"
description = """
Fires when in two readings in a row phase C stands where phase B should, and B where C should, within `tolerance_deg`: two
conductors are swapped. Reactive energy, and with it the power factor, is then counted wrongly, and motors run backwards.
Resolves with a reading in the right order; angles that fit neither say nothing. `measured` is the angle of B less that of
A, 0 to 360. `b_deg` is where B stands in the right order: 240 for phasors that turn counter-clockwise; 120 for meters
that count lag as positive.
Angles count only while all three phases have at least `live_pct` of nominal voltage. Needed are the three angles and
voltages; nominal voltage comes from `meters`. Not seen: a rotation of all phases (A to B, B to C, C to A), and meters
that give no angles.
"""
params      = { b_deg = 240.0, tolerance_deg = 30.0, live_pct = 60.0 }
---*/
WITH angles AS (
    SELECT
        r.meter_id,
        r.ts,
        TRY_CAST(r.ub_deg AS DECIMAL(12, 6)) - TRY_CAST(r.ua_deg AS DECIMAL(12, 6)) AS b_deg,
        TRY_CAST(r.uc_deg AS DECIMAL(12, 6)) - TRY_CAST(r.ua_deg AS DECIMAL(12, 6)) AS c_deg
    FROM meter_readings r
    JOIN meters m ON m.meter_id = r.meter_id
    WHERE TRY_CAST(r.u_a_v AS DECIMAL(12, 6)) * 100 >= TRY_CAST(m.nominal_v AS DECIMAL(12, 3)) * $live_pct
        AND TRY_CAST(r.u_b_v AS DECIMAL(12, 6)) * 100 >= TRY_CAST(m.nominal_v AS DECIMAL(12, 3)) * $live_pct
        AND TRY_CAST(r.u_c_v AS DECIMAL(12, 6)) * 100 >= TRY_CAST(m.nominal_v AS DECIMAL(12, 3)) * $live_pct
),
orders AS (
    -- b_deg and c_deg from 0 to 360; in the right order B stands at $b_deg and C at 360 - $b_deg.
    SELECT
        meter_id,
        ts,
        b_deg,
        abs(b_deg - $b_deg) <= $tolerance_deg AND abs(c_deg - (360 - $b_deg)) <= $tolerance_deg AS in_order,
        abs(c_deg - $b_deg) <= $tolerance_deg AND abs(b_deg - (360 - $b_deg)) <= $tolerance_deg AS swapped
    FROM (SELECT meter_id, ts, (b_deg % 360 + 360) % 360 AS b_deg, (c_deg % 360 + 360) % 360 AS c_deg FROM angles) a
    WHERE b_deg IS NOT NULL AND c_deg IS NOT NULL
)
SELECT
    meter_id,
    ts,
    CASE
        WHEN in_order THEN false
        WHEN swapped AND swapped_before THEN true
    END AS firing,
    CAST(b_deg AS DECIMAL(12, 6)) AS measured,
    $b_deg - $tolerance_deg AS limit_low,
    $b_deg + $tolerance_deg AS limit_high,
    'deg' AS unit
FROM (SELECT *, lag(swapped) OVER (PARTITION BY meter_id ORDER BY ts) AS swapped_before FROM orders) o
