/*---
id          = "pq_power_factor_month"
kind        = "table"
title       = "Power factor of each month and the adjustment of the bill by it"
title_zh    = "月功率因数与力调电费系数"
standard    = "(83) Shuidian Caizi No. 215 of 1983"
category    = "pq"
entity      = "meter_id"
unit        = "1"
owner       = "billing"
description = """
Power factor of a calendar month (Asia/Shanghai) from the advance of the registers: active energy over the root of the squares of active
and reactive energy, where reactive energy in both directions adds up; rounded half up to 2 decimals first, as the tables of the tariff
go by hundredths. `adjustment_pct` is what they change the bill by (`pf_adjustments`), for the standard of the customer's class
(`pf_standard` of `pq_points`: 0.90, 0.85 or 0.80, at the end of the month). It applies to the base that the tariff says (demand and
energy charges without government funds), which is not in the readings. An advance is that between two readings one after the other and
belongs to the month in which it ends; a reading at midnight of the 1st closes the old month. Rollovers of `digits` digits are added.
`verdict` is `below` or `at_or_above` the standard; `insufficient_data` if an advance makes no sense (`bad_steps`) or the advances cover
less than `min_coverage_pct` of the month, or as much more than it, since one of them began long before; `no_energy` without active
energy; `no_standard` without `pf_standard`. A meter without a register of exported reactive energy counts 0 for it; readings without the
active or the imported reactive register are passed over. Energies are those of the registers: ratios do not change the quotient.
"""
params      = { digits = 6, min_coverage_pct = 98.0 }
---*/
SELECT
    f.meter_id,
    f.window_start,
    f.window_end,
    CAST(f.window_start + INTERVAL '8 hours' AS DATE) AS local_month,
    f.active_kwh,
    f.reactive_kvarh,
    f.exact_power_factor,
    f.power_factor,
    f.pf_standard,
    a.adjustment_pct,
    CASE
        WHEN f.bad_steps > 0 OR NOT f.covered THEN 'insufficient_data'
        WHEN f.power_factor IS NULL THEN 'no_energy'
        WHEN f.pf_standard IS NULL OR a.adjustment_pct IS NULL THEN 'no_standard'
        WHEN f.power_factor < f.pf_standard THEN 'below'
        ELSE 'at_or_above'
    END AS verdict,
    f.coverage_pct,
    f.bad_steps,
    a.standard,
    a.clause
FROM (
    SELECT
        e.*,
        p.pf_standard,
        -- Half up to hundredths, before the table is asked.
        CAST(CAST(e.exact_power_factor AS DECIMAL(15, 12)) AS DECIMAL(5, 2)) AS power_factor
    FROM (
        SELECT
            *,
            coverage_pct BETWEEN $min_coverage_pct AND 200 - $min_coverage_pct AS covered,
            CASE WHEN bad_steps = 0 AND coverage_pct BETWEEN $min_coverage_pct AND 200 - $min_coverage_pct AND active_kwh > 0 THEN
                round(
                    CAST(active_kwh AS DOUBLE) / sqrt(
                        CAST(active_kwh AS DOUBLE) * CAST(active_kwh AS DOUBLE)
                            + CAST(reactive_kvarh AS DOUBLE) * CAST(reactive_kvarh AS DOUBLE)
                    ),
                    12
                )
            END AS exact_power_factor
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
    ) e
    -- The version of the last moment of the month.
    JOIN pq_points p ON p.meter_id = e.meter_id
        AND (p.valid_from IS NULL OR p.valid_from < e.window_end) AND (p.valid_to IS NULL OR e.window_end <= p.valid_to)
) f
LEFT JOIN pf_adjustments a ON a.pf_standard = f.pf_standard AND a.power_factor = f.power_factor
