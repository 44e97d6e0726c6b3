/*---
id          = "rd_current_loss"
kind        = "alert"
title       = "No current in one phase for two hours while another carries load"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "A"
standard    = "internal"
owner       = "metering"
description = """
Fires when through a two-hour UTC window one phase never had `zero_a` or more, while in each reading another phase had
more than `load_a`: an open or shorted current transformer, or a bypass, leaves a phase uncounted. `lost_phases` names
the phases, `measured` is the smallest of the phases' largest currents. It takes `samples` readings, all of them with
three currents. Resolves after a window in which each phase had `zero_a` or more; windows with less load or with values
missing say nothing. The limits are 0.5 % and 5 % of the rated current, here of 5 A: for meters of 10 A double them.
Whether the phase was ever used is not looked at: a customer who loads one phase only fires for good, so silence the
alert or exclude such meters in a copy. Not seen: a loss of all phases, and one shorter than a whole window.
"""
params      = { zero_a = 0.025, load_a = 0.25, samples = 8 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CASE
        WHEN samples < $samples OR samples < readings THEN NULL
        WHEN least(most_a, most_b, most_c) >= $zero_a THEN false
        WHEN least_load_a > $load_a THEN true
    END AS firing,
    least(most_a, most_b, most_c) AS measured,
    $zero_a AS limit_low,
    'A' AS unit,
    concat(
        CASE WHEN most_a < $zero_a THEN 'a' ELSE '' END,
        CASE WHEN most_b < $zero_a THEN 'b' ELSE '' END,
        CASE WHEN most_c < $zero_a THEN 'c' ELSE '' END
    ) AS lost_phases,
    least_load_a,
    samples
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(*) AS readings,
        count(*) FILTER (WHERE i_a IS NOT NULL AND i_b IS NOT NULL AND i_c IS NOT NULL) AS samples,
        max(i_a) AS most_a,
        max(i_b) AS most_b,
        max(i_c) AS most_c,
        min(greatest(i_a, i_b, i_c)) AS least_load_a
    FROM (
        SELECT
            meter_id,
            window_start,
            window_end,
            abs(TRY_CAST(i_a_a AS DECIMAL(12, 6))) AS i_a,
            abs(TRY_CAST(i_b_a AS DECIMAL(12, 6))) AS i_b,
            abs(TRY_CAST(i_c_a AS DECIMAL(12, 6))) AS i_c
        FROM TUMBLE(meter_readings, ts, INTERVAL '2 hours')
        WHERE i_a_a IS NOT NULL OR i_b_a IS NOT NULL OR i_c_a IS NOT NULL
    ) r
    GROUP BY meter_id, window_start, window_end
) w
WHERE samples > 0
