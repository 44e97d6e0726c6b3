/*---
id          = "pq_power_factor_month"
kind        = "table"
title       = "Power factor of each month and the adjustment of the bill by it"
standard    = "(83) Shuidian Caizi No. 215"
category    = "pq"
entity      = "meter_id"
unit        = "1"
owner       = "billing"
description = """
Power factor of a calendar month (Asia/Shanghai) from the advance of the registers: active energy over the root of the
squares of active and reactive energy, where reactive energy in both directions adds up; rounded half up to 2 decimals, as
billed. `adjustment_pct` is what the bill changes by for the standard `standard_pf` (0.90, 0.85 or 0.80): below it +0.5 %
for each 0.01 (+1 % from 0.20 below on, +2 % from 0.25 below on), above it less, by at most 0.75, 1.10 or 1.30 %. It
applies to the base that the tariff says, which is not in the readings. Which standard a customer has is in no table: copy
the rule for each. An advance is that between two readings one after the other and belongs to the month in which it ends;
a reading at midnight of the 1st closes the old month. Rollovers of `digits` digits are added. Without a verdict
(`insufficient_data`, power factor null): an advance that makes no sense (`bad_steps`), or advances that cover less than
`min_coverage_pct` of the month, or as much more than it, since one of them began long before. Without active energy the
verdict is `no_energy`. A meter without a register of exported reactive energy counts 0 for it. Readings without the
active or the imported reactive register are passed over. Verdicts are else `at_or_above` and `below`.
"""
params      = { standard_pf = 0.90, digits = 6, min_coverage_pct = 98.0 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_month,
    active_kwh,
    reactive_kvarh,
    power_factor,
    CASE
        WHEN power_factor IS NULL THEN NULL
        WHEN power_factor < $standard_pf - 0.25 THEN 15 + 200 * ($standard_pf - 0.25 - power_factor)
        WHEN power_factor < $standard_pf - 0.20 THEN 10 + 100 * ($standard_pf - 0.20 - power_factor)
        WHEN power_factor < $standard_pf THEN 50 * ($standard_pf - power_factor)
        -- 0.10 % for each 0.01 up to 0.90, then 0.15 %, up to 0.95, 0.94 or 0.92.
        ELSE -10 * (least(power_factor, 0.90) - $standard_pf)
            - 15 * greatest(
                least(
                    power_factor,
                    CASE WHEN $standard_pf >= 0.90 THEN 0.95 WHEN $standard_pf >= 0.85 THEN 0.94 ELSE 0.92 END
                ) - 0.90,
                0.00
            )
    END AS adjustment_pct,
    CASE
        WHEN bad_steps > 0 OR NOT covered THEN 'insufficient_data'
        WHEN power_factor IS NULL THEN 'no_energy'
        WHEN power_factor < $standard_pf THEN 'below'
        ELSE 'at_or_above'
    END AS verdict,
    coverage_pct,
    bad_steps
FROM (
    SELECT
        *,
        coverage_pct BETWEEN $min_coverage_pct AND 200 - $min_coverage_pct AS covered,
        CASE WHEN bad_steps = 0 AND coverage_pct BETWEEN $min_coverage_pct AND 200 - $min_coverage_pct AND active_kwh > 0 THEN
            CAST(
                CAST(
                    CAST(active_kwh AS DOUBLE) / sqrt(
                        CAST(active_kwh AS DOUBLE) * CAST(active_kwh AS DOUBLE)
                            + CAST(reactive_kvarh AS DOUBLE) * CAST(reactive_kvarh AS DOUBLE)
                    ) AS DECIMAL(15, 12)
                ) AS DECIMAL(5, 2)
            )
        END AS power_factor
    FROM (
        SELECT
            meter_id,
            window_start,
            window_end,
            sum(active_kwh) AS active_kwh,
            sum(import_kvarh) + sum(coalesce(export_kvarh, 0)) AS reactive_kvarh,
            count(*) FILTER (
                WHERE active_kwh IS NULL OR import_kvarh IS NULL OR (has_export AND export_kvarh IS NULL)
            ) AS bad_steps,
            round(
                100 * CAST(sum(covered_s) AS DOUBLE) / (extract(epoch FROM window_end) - extract(epoch FROM window_start)),
                6
            ) AS coverage_pct
        FROM TUMBLE(
            (
                SELECT
                    meter_id,
                    -- A reading at midnight closes the day before.
                    ts - INTERVAL '1 microsecond' AS at,
                    extract(epoch FROM ts) - extract(epoch FROM before_ts) AS covered_s,
                    register_delta_kwh(before_active, energy_imp_kwh, $digits) AS active_kwh,
                    register_delta_kwh(before_import, reactive_imp_kvarh, $digits) AS import_kvarh,
                    register_delta_kwh(before_export, reactive_exp_kvarh, $digits) AS export_kvarh,
                    before_export IS NOT NULL OR reactive_exp_kvarh IS NOT NULL AS has_export
                FROM (
                    SELECT
                        meter_id,
                        ts,
                        energy_imp_kwh,
                        reactive_imp_kvarh,
                        reactive_exp_kvarh,
                        lag(ts) OVER w AS before_ts,
                        lag(energy_imp_kwh) OVER w AS before_active,
                        lag(reactive_imp_kvarh) OVER w AS before_import,
                        lag(reactive_exp_kvarh) OVER w AS before_export
                    FROM meter_readings
                    WHERE energy_imp_kwh IS NOT NULL AND reactive_imp_kvarh IS NOT NULL
                    WINDOW w AS (PARTITION BY meter_id ORDER BY ts)
                ) l
                WHERE before_ts IS NOT NULL
            ),
            at,
            INTERVAL '1 month',
            'Asia/Shanghai'
        )
        GROUP BY meter_id, window_start, window_end
    ) s
) f
