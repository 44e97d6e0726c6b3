/*---
id          = "rd_out_of_range"
kind        = "alert"
title       = "Reading holds a value that cannot be"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
standard    = "internal"
owner       = "metering"
description = """
Each such reading is one occurrence: a phase voltage below zero or above `voltage_max_pct` of nominal, a current below
zero, a power factor beyond 1, a frequency outside the given range, a negative import register. `reason` names the first that holds.
"""
params      = { voltage_max_pct = 150.0, frequency_low_hz = 45.0, frequency_high_hz = 55.0 }
---*/
SELECT
    meter_id,
    ts,
    reason,
    CASE reason
        WHEN 'voltage_negative' THEN lowest_v
        WHEN 'voltage_high' THEN highest_v
        WHEN 'current_negative' THEN lowest_a
        WHEN 'power_factor' THEN pf
        WHEN 'frequency' THEN freq_hz
        ELSE register_kwh
    END AS measured,
    CASE reason
        WHEN 'voltage_high' THEN voltage_max_v
        WHEN 'power_factor' THEN 1.0
        WHEN 'frequency' THEN CAST($frequency_high_hz AS DOUBLE)
    END AS limit_high,
    CASE reason
        WHEN 'voltage_high' THEN NULL
        WHEN 'power_factor' THEN -1.0
        WHEN 'frequency' THEN CAST($frequency_low_hz AS DOUBLE)
        ELSE 0.0
    END AS limit_low
FROM (
    SELECT
        meter_id,
        ts,
        lowest_v,
        highest_v,
        voltage_max_v,
        lowest_a,
        pf,
        freq_hz,
        register_kwh,
        CASE
            WHEN lowest_v < 0 THEN 'voltage_negative'
            WHEN highest_v > voltage_max_v THEN 'voltage_high'
            WHEN lowest_a < 0 THEN 'current_negative'
            WHEN pf > 1 OR pf < -1 THEN 'power_factor'
            WHEN freq_hz < $frequency_low_hz OR freq_hz > $frequency_high_hz THEN 'frequency'
            WHEN register_kwh < 0 THEN 'register_negative'
        END AS reason
    FROM (
        SELECT
            r.meter_id,
            r.ts,
            least(r.u_a_v, r.u_b_v, r.u_c_v) AS lowest_v,
            round(greatest(r.u_a_v, r.u_b_v, r.u_c_v), 6) AS highest_v,
            round(CAST(m.nominal_v AS DOUBLE) * CAST($voltage_max_pct AS DOUBLE) / 100, 6) AS voltage_max_v,
            least(r.i_a_a, r.i_b_a, r.i_c_a) AS lowest_a,
            round(r.pf, 6) AS pf,
            round(r.freq_hz, 6) AS freq_hz,
            CAST(r.energy_imp_kwh AS DOUBLE) AS register_kwh
        FROM meter_readings r
        JOIN meters m ON m.meter_id = r.meter_id
    ) v
) c
WHERE reason IS NOT NULL
