/*---
id          = "rd_daily_energy"
kind        = "table"
title       = "Energy of each meter and local day, by power and by register"
version     = "1.1"
category    = "integrity"
entity      = "meter_id"
unit        = "kWh"
standard    = "internal"
owner       = "metering"
description = """
`energy_kwh` adds up power times the interval of each reading (`interval_s` of the reading, else `sample_s`);
`register_kwh` is the largest less the smallest register value and so lacks the time before the first reading. If the
register rolled over (the first value of the day stands in the last tenth of the register, the last one in the first),
it is what the register counted from the first to the last (`register_delta_kwh`). It then has the digits that its first
value has before the point, at least `digits_min`, so that no table need say how many. A reading without power adds
nothing: `covered_s` says how much of the day the power values cover. Days are those of UTC+8 (they begin at 16:00 UTC):
change the origin of the window for another zone.
"""
params      = { sample_s = 60, digits_min = 4 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_date,
    samples,
    covered_s,
    CAST(energy_kws / 3600 AS DECIMAL(28, 9)) AS energy_kwh,
    CAST(
        CASE
            WHEN last_kwh < first_kwh THEN coalesce(
                register_delta_kwh(first_kwh, last_kwh, greatest($digits_min, strpos(CAST(first_kwh AS VARCHAR), '.') - 1)),
                highest_kwh - lowest_kwh
            )
            ELSE highest_kwh - lowest_kwh
        END AS DECIMAL(19, 4)
    ) AS register_kwh
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(power_kw) AS samples,
        sum(interval_s) FILTER (WHERE power_kw IS NOT NULL) AS covered_s,
        CAST(sum(power_kw * interval_s) AS DECIMAL(28, 6)) AS energy_kws,
        max(energy_imp_kwh) AS highest_kwh,
        min(energy_imp_kwh) AS lowest_kwh,
        first_value(energy_imp_kwh ORDER BY ts) FILTER (WHERE energy_imp_kwh IS NOT NULL) AS first_kwh,
        last_value(energy_imp_kwh ORDER BY ts) FILTER (WHERE energy_imp_kwh IS NOT NULL) AS last_kwh
    FROM (
        SELECT
            meter_id,
            ts,
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
