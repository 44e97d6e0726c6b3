/*---
id          = "rd_register_mismatch"
kind        = "alert"
title       = "Register advance disagrees with the power of the day"
severity    = "warning"
version     = "1.1"
entity      = "meter_id"
category    = "integrity"
unit        = "kWh"
standard    = "internal"
owner       = "metering"
description = """
Compares the two energies of rd_daily_energy. Fires when they differ by more than `tolerance_pct` of the energy by power
and by more than `tolerance_kwh`: a register that stands still, runs away, rolls back or has the wrong multiplier shows
here, one that rolls over does not. A day whose power values cover less than `min_covered_s` seconds is not judged.
"""
params      = { tolerance_pct = 5.0, tolerance_kwh = 0.5, min_covered_s = 82080 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    abs(register_kwh - energy_kwh) > $tolerance_kwh
        AND abs(register_kwh - energy_kwh) * 100 > energy_kwh * $tolerance_pct AS firing,
    register_kwh AS measured,
    CAST(energy_kwh * (1 - $tolerance_pct / 100) AS DECIMAL(28, 4)) AS limit_low,
    CAST(energy_kwh * (1 + $tolerance_pct / 100) AS DECIMAL(28, 4)) AS limit_high,
    'kWh' AS unit,
    energy_kwh,
    covered_s,
    local_date
FROM rd_daily_energy
WHERE register_kwh IS NOT NULL AND covered_s >= $min_covered_s
