/*---
id          = "an_load_cusum"
kind        = "alert"
title       = "Daily energy drifts away from its target"
title_zh    = "日电量持续偏离目标值（CUSUM）"
severity    = "warning"
entity      = "meter_id"
category    = "anomaly"
unit        = "kWh"
standard    = "internal"
owner       = "analytics"
description = """
For meters of `load_targets` adds up, day by day, by how much the energy (rd_daily_energy) was above `target_kwh` by more
than `slack_kwh`, never below 0, and the same below (the cumulative sums of E. S. Page, 1954). Fires when one of them is
above `limit_kwh`: a change too small to be seen on one day, kept up for many. Resolves when both sums have come down to
the limit again, which takes as many good days. Usual choices are half of the change that matters for the slack, and
some days of it for the limit. Days that power values cover less than `covered_pct` are left out. Kept are two numbers for
each meter. Not seen: meters without a target, and seasons, for which targets are versions with `valid_from`.
"""
params      = { covered_pct = 95.0 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    greatest(high_kwh, low_kwh) > limit_kwh AS firing,
    CASE WHEN high_kwh > limit_kwh THEN 'above' WHEN low_kwh > limit_kwh THEN 'below' ELSE 'on_target' END AS verdict,
    greatest(high_kwh, low_kwh) AS measured,
    limit_kwh AS limit_high,
    'kWh' AS unit,
    energy_kwh,
    target_kwh,
    slack_kwh,
    high_kwh,
    low_kwh,
    local_date
FROM (
    SELECT
        d.meter_id,
        d.window_start,
        d.window_end,
        d.local_date,
        d.energy_kwh,
        TRY_CAST(t.target_kwh AS DECIMAL(18, 6)) AS target_kwh,
        TRY_CAST(t.slack_kwh AS DECIMAL(18, 6)) AS slack_kwh,
        TRY_CAST(t.limit_kwh AS DECIMAL(18, 6)) AS limit_kwh,
        CAST(
            round(cusum_high(CAST(d.energy_kwh AS DOUBLE), CAST(t.target_kwh AS DOUBLE), CAST(t.slack_kwh AS DOUBLE)) OVER w, 6)
            AS DECIMAL(28, 6)
        ) AS high_kwh,
        CAST(
            round(cusum_low(CAST(d.energy_kwh AS DOUBLE), CAST(t.target_kwh AS DOUBLE), CAST(t.slack_kwh AS DOUBLE)) OVER w, 6)
            AS DECIMAL(28, 6)
        ) AS low_kwh
    FROM rd_daily_energy d
    JOIN load_targets t ON t.meter_id = d.meter_id
    WHERE d.covered_s * 100 >= 86400 * $covered_pct
        AND t.target_kwh IS NOT NULL AND t.slack_kwh IS NOT NULL AND t.limit_kwh IS NOT NULL
    WINDOW w AS (PARTITION BY d.meter_id ORDER BY d.window_start)
) s
