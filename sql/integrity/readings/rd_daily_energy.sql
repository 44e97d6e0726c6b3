/*---
id          = "rd_daily_energy"
kind        = "table"
title       = "Energy of each meter and local day, by power and by register"
category    = "integrity"
entity      = "meter_id"
unit        = "kWh"
standard    = "internal"
owner       = "metering"
description = """
`energy_kwh` adds up power times the interval of each reading (`interval_s` of the reading, else `sample_s`);
`register_kwh` is the largest less the smallest register value and so lacks the time before the first reading. A reading
without power adds nothing: `covered_s` says how much of the day the power values cover.
Days are those of UTC+8 (they begin at 16:00 UTC): change the origin of the window for another zone.
"""
params      = { sample_s = 60 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_date,
    samples,
    covered_s,
    CAST(energy_kws / 3600 AS DECIMAL(28, 9)) AS energy_kwh,
    register_kwh
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(power_kw) AS samples,
        sum(interval_s) FILTER (WHERE power_kw IS NOT NULL) AS covered_s,
        CAST(sum(power_kw * interval_s) AS DECIMAL(28, 6)) AS energy_kws,
        max(energy_imp_kwh) - min(energy_imp_kwh) AS register_kwh
    FROM (
        SELECT
            meter_id,
            window_start,
            window_end,
            TRY_CAST(p_kw AS DECIMAL(15, 6)) AS power_kw,
            coalesce(interval_s, $sample_s) AS interval_s,
            energy_imp_kwh
        FROM TUMBLE(meter_readings, ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    ) r
    GROUP BY meter_id, window_start, window_end
) d
WHERE samples > 0
