/*---
id          = "rd_register_stuck"
kind        = "alert"
title       = "Import register stands still although power is drawn"
title_zh    = "示度停走"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "kWh"
standard    = "internal"
owner       = "metering"
description = """
Fires when all register values of a two-hour UTC window are equal while every power value of it is above `power_kw`.
Such energy is used and not billed. It takes `samples` readings with both values; eight of a quarter of an hour span 105
minutes, in which 0.1 kW makes 0.175 kWh. `power_kw` must be large enough to move the last digit of the register in that
time: for a register of whole kWh take 0.6 kW or more. Resolves when the register moves; windows with less load or fewer
readings say nothing. Freezes and event records are left out. Not seen: a stop shorter than a whole window, a register
that is slow but not still (see rd_register_mismatch), and a meter whose power reads zero as well.
"""
params      = { power_kw = 0.1, samples = 8 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CASE
        WHEN register_kwh > 0 THEN false
        WHEN samples >= $samples AND powers = readings AND lowest_kw > $power_kw THEN true
    END AS firing,
    register_kwh AS measured,
    'kWh' AS unit,
    lowest_kw,
    samples
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(*) AS readings,
        count(power_kw) AS powers,
        count(*) FILTER (WHERE power_kw IS NOT NULL AND energy_imp_kwh IS NOT NULL) AS samples,
        min(power_kw) AS lowest_kw,
        max(energy_imp_kwh) - min(energy_imp_kwh) AS register_kwh
    FROM (
        SELECT
            meter_id,
            window_start,
            window_end,
            energy_imp_kwh,
            TRY_CAST(p_kw AS DECIMAL(15, 6)) AS power_kw
        FROM TUMBLE(meter_readings, ts, INTERVAL '2 hours')
        WHERE (p_kw IS NOT NULL OR energy_imp_kwh IS NOT NULL)
            AND coalesce(reading_kind, 'instant') IN ('instant', 'interval')
    ) r
    GROUP BY meter_id, window_start, window_end
) w
WHERE register_kwh IS NOT NULL
