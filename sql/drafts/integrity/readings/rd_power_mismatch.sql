/*---
id          = "rd_power_mismatch"
kind        = "alert"
title       = "Active power disagrees with voltage, current and power factor"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "kW"
standard    = "internal"
owner       = "metering"
description = """
Compares, over one hour, the mean of the total active power with the mean of the sum over phases of U * I times the
total power factor, both without sign. Fires when they differ by more than `tolerance_pct` of the latter and by more
than `tolerance_kw`: a ratio of transformers applied to one value and not the other, a wrong unit or scale, a phase
missing from the total. Needed in a reading: total power, total power factor, and voltage to neutral with current of
each phase (a phase that has neither is taken as not there), one current of at least `min_current_a`, which is 5 % of
the rated current, here of 5 A. Other readings are passed over; an hour with fewer than `samples` of them says nothing.
The schema has no power factor of single phases: where phases differ much and the meter forms the total as a vector sum,
raise the tolerance. Not seen: an error that is in the power factor too because the meter computes it from the power, a
phase that lacks both values, and meters of three wires.
"""
params      = { tolerance_pct = 5.0, tolerance_kw = 0.05, min_current_a = 0.25, samples = 4 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    abs(power_kw - expected_kw) * 100 > expected_kw * $tolerance_pct
        AND abs(power_kw - expected_kw) > $tolerance_kw * samples AS firing,
    CAST(power_kw / samples AS DECIMAL(18, 6)) AS measured,
    CAST(expected_kw * (1 - $tolerance_pct / 100) / samples AS DECIMAL(18, 6)) AS limit_low,
    CAST(expected_kw * (1 + $tolerance_pct / 100) / samples AS DECIMAL(18, 6)) AS limit_high,
    'kW' AS unit,
    samples
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(*) AS samples,
        CAST(sum(power_kw) AS DECIMAL(24, 6)) AS power_kw,
        CAST(sum(apparent_va * power_factor) / 1000 AS DECIMAL(24, 6)) AS expected_kw
    FROM (
        SELECT
            meter_id,
            window_start,
            window_end,
            power_kw,
            power_factor,
            coalesce(u_a * i_a, 0) + coalesce(u_b * i_b, 0) + coalesce(u_c * i_c, 0) AS apparent_va
        FROM (
            SELECT
                meter_id,
                window_start,
                window_end,
                abs(TRY_CAST(p_kw AS DECIMAL(15, 6))) AS power_kw,
                abs(TRY_CAST(pf AS DECIMAL(6, 4))) AS power_factor,
                TRY_CAST(u_a_v AS DECIMAL(10, 3)) AS u_a,
                TRY_CAST(u_b_v AS DECIMAL(10, 3)) AS u_b,
                TRY_CAST(u_c_v AS DECIMAL(10, 3)) AS u_c,
                abs(TRY_CAST(i_a_a AS DECIMAL(9, 4))) AS i_a,
                abs(TRY_CAST(i_b_a AS DECIMAL(9, 4))) AS i_b,
                abs(TRY_CAST(i_c_a AS DECIMAL(9, 4))) AS i_c
            FROM TUMBLE(meter_readings, ts, INTERVAL '1 hour')
        ) v
        WHERE power_kw IS NOT NULL
            AND power_factor IS NOT NULL
            AND (u_a IS NULL) = (i_a IS NULL)
            AND (u_b IS NULL) = (i_b IS NULL)
            AND (u_c IS NULL) = (i_c IS NULL)
            AND greatest(i_a, i_b, i_c) >= $min_current_a
    ) r
    GROUP BY meter_id, window_start, window_end
) h
WHERE samples >= $samples AND expected_kw IS NOT NULL AND power_kw IS NOT NULL
