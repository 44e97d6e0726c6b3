/*---
id          = "rd_current_loss"
kind        = "alert"
title       = "No current in one phase for two hours while another carries load"
title_zh    = "失流(一相无电流而他相有负荷)"
severity    = "warning"
entity      = ["meter_id", "phase"]
category    = "integrity"
unit        = "A"
standard    = "DL/T 698.45-2017"
clause      = "event object 3004 (current loss); the thresholds are internal"
owner       = "metering"
description = """
Fires when through a two-hour UTC window a phase never had `zero_pct` of the rated current or more, while in each reading
another phase had more than `load_pct`, and the phase carried `zero_pct` or more within the 30 days before: an open or
shorted current transformer, or a bypass, leaves the phase uncounted. `measured` is its largest current in the window. It
takes `samples` readings, all of them with its current. Resolves after a window in which it had `zero_pct` or more;
windows with less load or with values missing say nothing, nor do those of a phase that was not used for 30 days.
The rated current is that of `meter_installations` (see rd_phases).
Not seen: a loss of all phases, one shorter than a whole window, and one that began before the meter was watched.
"""
params      = { zero_pct = 0.5, load_pct = 5.0, samples = 8 }
---*/
SELECT
    meter_id,
    phase,
    window_start,
    window_end,
    CASE
        WHEN samples < $samples OR samples < readings THEN NULL
        WHEN most_a >= zero_a THEN false
        WHEN least_load_a > load_a AND most_in_30_days_a >= zero_a THEN true
    END AS firing,
    most_a AS measured,
    zero_a AS limit_low,
    'A' AS unit,
    least_load_a,
    most_in_30_days_a,
    samples
FROM (
    SELECT
        *,
        CAST(rated_a * $zero_pct / 100 AS DECIMAL(18, 6)) AS zero_a,
        CAST(rated_a * $load_pct / 100 AS DECIMAL(18, 6)) AS load_a,
        max(most_a) OVER (
            PARTITION BY meter_id, phase ORDER BY window_start RANGE INTERVAL '30 days' PRECEDING
        ) AS most_in_30_days_a
    FROM (
        SELECT
            meter_id,
            phase,
            window_start,
            window_end,
            count(*) AS readings,
            count(*) FILTER (WHERE current_a IS NOT NULL AND other_a IS NOT NULL) AS samples,
            max(current_a) AS most_a,
            min(other_a) AS least_load_a,
            max(rated_a) AS rated_a
        FROM TUMBLE(rd_phases, ts, INTERVAL '2 hours')
        WHERE current_a IS NOT NULL OR other_a IS NOT NULL
        GROUP BY meter_id, phase, window_start, window_end
    ) w
) u
WHERE most_a IS NOT NULL AND least_load_a IS NOT NULL
