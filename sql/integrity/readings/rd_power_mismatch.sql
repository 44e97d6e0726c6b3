/*---
id          = "rd_power_mismatch"
kind        = "alert"
title       = "Active power disagrees with voltage, current and power factor"
title_zh    = "有功功率与电压电流功率因数不符"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "kW"
standard    = "internal"
owner       = "metering"
description = """
Compares, over one hour, the mean of the total active power with the mean of the sum over phases of U * I times the power
factor of the phase, else the total one, both without sign. Fires when they differ by more than `tolerance_pct` of the
latter and by more than `tolerance_kw`: a ratio of transformers applied to one value and not the other, a wrong unit or
scale, a phase missing from the total. Needed in a reading: total power, voltage to neutral, current and power factor of
each phase (a phase that has neither voltage nor current is taken as not there), and one current of at least
`min_current_pct` of the rated current (`meter_installations`, else `rated_a`). Other readings are passed over; an hour
with fewer than `samples` of them says nothing.
Where only the total power factor is known, phases differ much and the meter forms the total as a vector sum, raise the
tolerance. Not seen: an error that is in the power factor too because the meter computes it from the power, a phase that
lacks both values, and meters of three wires.
"""
params      = { tolerance_pct = 5.0, tolerance_kw = 0.05, min_current_pct = 5.0, rated_a = 5.0, samples = 4 }
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
        CAST(sum(active_w) / 1000 AS DECIMAL(24, 6)) AS expected_kw
    FROM (
        SELECT
            meter_id,
            window_start,
            window_end,
            power_kw,
            CAST(coalesce(u_a * i_a * pf_a, 0) + coalesce(u_b * i_b * pf_b, 0) + coalesce(u_c * i_c * pf_c, 0) AS DECIMAL(28, 6))
                AS active_w
        FROM (
            SELECT
                r.meter_id,
                r.window_start,
                r.window_end,
                abs(TRY_CAST(r.p_kw AS DECIMAL(15, 6))) AS power_kw,
                abs(TRY_CAST(coalesce(r.pf_a, r.pf) AS DECIMAL(6, 4))) AS pf_a,
                abs(TRY_CAST(coalesce(r.pf_b, r.pf) AS DECIMAL(6, 4))) AS pf_b,
                abs(TRY_CAST(coalesce(r.pf_c, r.pf) AS DECIMAL(6, 4))) AS pf_c,
                TRY_CAST(r.u_a_v AS DECIMAL(10, 3)) AS u_a,
                TRY_CAST(r.u_b_v AS DECIMAL(10, 3)) AS u_b,
                TRY_CAST(r.u_c_v AS DECIMAL(10, 3)) AS u_c,
                abs(TRY_CAST(r.i_a_a AS DECIMAL(9, 4))) AS i_a,
                abs(TRY_CAST(r.i_b_a AS DECIMAL(9, 4))) AS i_b,
                abs(TRY_CAST(r.i_c_a AS DECIMAL(9, 4))) AS i_c,
                coalesce(TRY_CAST(i.rated_a AS DECIMAL(12, 3)), $rated_a) AS rated_a
            FROM TUMBLE(meter_readings, ts, INTERVAL '1 hour') r
            LEFT JOIN meter_installations i ON i.meter_id = r.meter_id
        ) v
        WHERE power_kw IS NOT NULL
            AND (u_a IS NULL) = (i_a IS NULL)
            AND (u_b IS NULL) = (i_b IS NULL)
            AND (u_c IS NULL) = (i_c IS NULL)
            AND (u_a IS NULL OR pf_a IS NOT NULL)
            AND (u_b IS NULL OR pf_b IS NOT NULL)
            AND (u_c IS NULL OR pf_c IS NOT NULL)
            AND greatest(i_a, i_b, i_c) * 100 >= rated_a * $min_current_pct
    ) r
    GROUP BY meter_id, window_start, window_end
) h
WHERE samples >= $samples AND expected_kw IS NOT NULL AND power_kw IS NOT NULL
