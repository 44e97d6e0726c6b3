/*---
id          = "an_daily_energy_ewma"
kind        = "alert"
title       = "Energy of a day far off that of the days before"
title_zh    = "日电量偏离近日加权均值"
severity    = "info"
entity      = "meter_id"
category    = "anomaly"
unit        = "sigma"
standard    = "internal"
owner       = "analytics"
description = """
Compares the energy of each local day (rd_daily_energy) with the exponentially weighted mean and variance of the days
before (weight `alpha`) and fires beyond `max_z` standard deviations, if it is also more than `min_change_pct` off that mean.
Days that power values cover less than `covered_pct` are left out, as a gap is no saving. Until `min_days` days are known
the verdict is `insufficient_data`. Kept are four numbers for each meter. Not seen: a change in small steps (an_load_cusum),
and the difference between working days and Sundays, which widens the variance (an_load_season).
"""
[params]
alpha          = 0.2
min_days       = 5
max_z          = 6.0
min_change_pct = 50.0
covered_pct    = 95.0
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CASE WHEN days_before >= $min_days THEN is_far END AS firing,
    CASE
        WHEN days_before < $min_days THEN 'insufficient_data'
        WHEN NOT is_far THEN 'usual'
        WHEN z > 0 THEN 'high'
        ELSE 'low'
    END AS verdict,
    z AS measured,
    -$max_z AS limit_low,
    $max_z AS limit_high,
    'sigma' AS unit,
    energy_kwh,
    usual_kwh,
    days_before,
    local_date
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        local_date,
        energy_kwh,
        z,
        usual_kwh,
        days_before,
        abs(z) > $max_z AND abs(energy_kwh - usual_kwh) * 100 > abs(usual_kwh) * $min_change_pct AS is_far
    FROM (
        SELECT
            meter_id,
            window_start,
            window_end,
            local_date,
            energy_kwh,
            z,
            CAST(lag(weighted_kwh) OVER (PARTITION BY meter_id ORDER BY window_start) AS DECIMAL(18, 6)) AS usual_kwh,
            n - 1 AS days_before
        FROM (
            SELECT
                meter_id,
                window_start,
                window_end,
                local_date,
                TRY_CAST(energy_kwh AS DECIMAL(18, 6)) AS energy_kwh,
                round(ewma_z(CAST(energy_kwh AS DOUBLE), $alpha) OVER w, 6) AS z,
                TRY_CAST(ewma(CAST(energy_kwh AS DOUBLE), $alpha) OVER w AS DECIMAL(18, 6)) AS weighted_kwh,
                row_number() OVER w AS n
            FROM rd_daily_energy
            WHERE covered_s * 100 >= 86400 * $covered_pct
            WINDOW w AS (PARTITION BY meter_id ORDER BY window_start)
        ) e
    ) d
) f
