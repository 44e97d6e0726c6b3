/*---
id          = "rd_tariff_registers"
kind        = "alert"
title       = "Total register differs from the sum of the tariff registers"
title_zh    = "总示度与各费率示度之和不符"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "kWh"
standard    = "internal"
owner       = "metering"
description = """
Fires when the register of imported energy and the sum of its four tariff registers (sharp, peak, flat, valley) differ by
more than `tolerance_kwh`, in either direction: energy is missing from a bill by time of use, or was counted twice. The
tolerance covers the rounding of each register; 0.1 kWh suits registers of two decimals.
`measured` is the sum of the tariff registers. A reading that lacks one of the five values is not judged, so meters with
fewer tariffs must deliver the unused registers as 0.
Not seen: energy in the wrong tariff register, and a reading whose registers were not frozen at the same instant may fire.
"""
params      = { tolerance_kwh = 0.1 }
---*/
SELECT
    meter_id,
    ts,
    abs(energy_imp_kwh - tariffs_kwh) > $tolerance_kwh AS firing,
    tariffs_kwh AS measured,
    energy_imp_kwh - $tolerance_kwh AS limit_low,
    energy_imp_kwh + $tolerance_kwh AS limit_high,
    'kWh' AS unit,
    energy_imp_kwh AS total_kwh,
    tariffs_kwh - energy_imp_kwh AS difference_kwh
FROM (
    SELECT
        meter_id,
        ts,
        energy_imp_kwh,
        energy_imp_t1_kwh + energy_imp_t2_kwh + energy_imp_t3_kwh + energy_imp_t4_kwh AS tariffs_kwh
    FROM meter_readings
) r
WHERE energy_imp_kwh IS NOT NULL AND tariffs_kwh IS NOT NULL
