/*---
id          = "rd_register_steps"
kind        = "view"
title       = "Steps of the registers of a meter from one reading to the next"
title_zh    = "电能示度逐次变化"
category    = "integrity"
entity      = ["meter_id", "register"]
standard    = "internal"
owner       = "metering"
description = """
One row per register of a reading that has a previous value: imported and exported energy, the four tariff registers,
reactive energy of both directions. `digits` is the number of digits before the point, from `meter_installations` as of
the reading, else the parameter; the register starts again from zero at `range_end`.
`step` says what happened: `advance` (or no change), `rollover` (from the last tenth of the register to its first),
`exchange` (a row of `meter_installations` began after the previous reading: another meter, other ratios), `rollback` (any
other lower value) and `repeat` (the same instant again). `used` is the energy of an advance or a rollover in units of the
register, `used_primary` the same times the ratios of the transformers (1 where they are not known).
"""
params      = { digits = 6 }
---*/
SELECT
    meter_id,
    register,
    ts,
    unit,
    value,
    previous_value,
    previous_ts,
    seconds,
    digits,
    range_end,
    step,
    CASE
        WHEN step = 'advance' THEN value - previous_value
        WHEN step = 'rollover' THEN value - previous_value + range_end
    END AS used,
    CAST(
        CASE
            WHEN step = 'advance' THEN value - previous_value
            WHEN step = 'rollover' THEN value - previous_value + range_end
        END * coalesce(ct_ratio, 1) * coalesce(pt_ratio, 1)
        AS DECIMAL(28, 4)
    ) AS used_primary
FROM (
    SELECT
        *,
        CASE
            WHEN seconds <= 0 THEN 'repeat'
            WHEN installed_at > previous_ts THEN 'exchange'
            WHEN value >= previous_value THEN 'advance'
            WHEN previous_value > 0.9 * range_end
                AND previous_value < range_end
                AND value >= 0
                AND value < 0.1 * range_end THEN 'rollover'
            ELSE 'rollback'
        END AS step
    FROM (
        SELECT
            s.*,
            CASE WHEN i.register_digits BETWEEN 1 AND 14 THEN i.register_digits ELSE $digits END AS digits,
            CAST(
                power(10, CASE WHEN i.register_digits BETWEEN 1 AND 14 THEN i.register_digits ELSE $digits END) AS DECIMAL(20, 0)
            ) AS range_end,
            TRY_CAST(i.ct_ratio AS DECIMAL(10, 3)) AS ct_ratio,
            TRY_CAST(i.pt_ratio AS DECIMAL(10, 3)) AS pt_ratio,
            i.valid_from AS installed_at
        FROM (
            SELECT
                *,
                TRY_CAST(extract(epoch FROM ts) - extract(epoch FROM previous_ts) AS DECIMAL(15, 3)) AS seconds
            FROM (
                SELECT
                    meter_id,
                    register,
                    ts,
                    unit,
                    value,
                    lag(value) OVER (PARTITION BY meter_id, register ORDER BY ts) AS previous_value,
                    lag(ts) OVER (PARTITION BY meter_id, register ORDER BY ts) AS previous_ts
                FROM (
                    SELECT
                        meter_id,
                        ts,
                        item['register'] AS register,
                        item['unit'] AS unit,
                        item['value'] AS value
                    FROM (
                        SELECT
                            meter_id,
                            ts,
                            unnest([
                                named_struct('register', 'energy_imp', 'unit', 'kWh', 'value', energy_imp_kwh),
                                named_struct('register', 'energy_exp', 'unit', 'kWh', 'value', energy_exp_kwh),
                                named_struct('register', 'energy_imp_t1', 'unit', 'kWh', 'value', energy_imp_t1_kwh),
                                named_struct('register', 'energy_imp_t2', 'unit', 'kWh', 'value', energy_imp_t2_kwh),
                                named_struct('register', 'energy_imp_t3', 'unit', 'kWh', 'value', energy_imp_t3_kwh),
                                named_struct('register', 'energy_imp_t4', 'unit', 'kWh', 'value', energy_imp_t4_kwh),
                                named_struct('register', 'reactive_imp', 'unit', 'kvar.h', 'value', reactive_imp_kvarh),
                                named_struct('register', 'reactive_exp', 'unit', 'kvar.h', 'value', reactive_exp_kvarh)
                            ]) AS item
                        FROM meter_readings
                    ) l
                ) v
                WHERE value IS NOT NULL
            ) w
        ) s
        LEFT JOIN meter_installations i ON i.meter_id = s.meter_id
        WHERE s.previous_value IS NOT NULL
    ) r
) c
