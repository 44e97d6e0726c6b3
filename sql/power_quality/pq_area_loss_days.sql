/*---
id          = "pq_area_loss_days"
kind        = "table"
title       = "Line loss of each station area and local day"
title_zh    = "台区日线损"
standard    = "internal"
category    = "load"
entity      = "area_id"
unit        = "kWh"
owner       = "distribution"
description = """
Energy that enters an area (gate meters of role `supply`, feed-in of role `generation`, its exported energy) less what leaves it by its
meters (role `consumption`, and what the gate exports), as a share of what enters, for each local day (UTC+8). Members are those of
`area_meters` at the end of the day, silent ones included. The energy of a meter is the advance of its register times `multiplier`; an
advance belongs to the day in which it ends, and a freeze at 00:00 closes the day before. Rollovers of `digits` digits are added.
A meter is complete if its advances make sense and cover the day within `tolerance_pct`. Only if every gate meter and at least
`min_complete_pct` of all members are complete is there a verdict: `normal` from 0 to `normal_pct`, `watch` up to `abnormal_pct`, else
`abnormal` (also below 0); a value equal to a limit is inside. Else it is `insufficient_data`, because a missing meter looks like loss; the
sums are those of complete meters. rd_line_loss does the same for feeders from powers.
"""
params      = { digits = 6, tolerance_pct = 1.0, min_complete_pct = 98.0, normal_pct = 7.0, abnormal_pct = 12.0 }
---*/
WITH steps AS (
    SELECT
        meter_id,
        -- A reading at midnight closes the day before.
        ts - INTERVAL '1 microsecond' AS at,
        extract(epoch FROM ts) - extract(epoch FROM before_ts) AS covered_s,
        register_delta_kwh(before_imp, energy_imp_kwh, $digits) AS imp_kwh,
        register_delta_kwh(before_exp, energy_exp_kwh, $digits) AS exp_kwh,
        before_imp IS NOT NULL OR energy_imp_kwh IS NOT NULL AS has_imp,
        before_exp IS NOT NULL OR energy_exp_kwh IS NOT NULL AS has_exp
    FROM (
        SELECT
            meter_id,
            ts,
            energy_imp_kwh,
            energy_exp_kwh,
            lag(ts) OVER w AS before_ts,
            lag(energy_imp_kwh) OVER w AS before_imp,
            lag(energy_exp_kwh) OVER w AS before_exp
        FROM meter_readings
        WHERE energy_imp_kwh IS NOT NULL OR energy_exp_kwh IS NOT NULL
        WINDOW w AS (PARTITION BY meter_id ORDER BY ts)
    ) l
    WHERE before_ts IS NOT NULL
),
days AS (
    SELECT
        meter_id,
        window_start,
        window_end,
        sum(covered_s) AS covered_s,
        sum(imp_kwh) AS imp_kwh,
        sum(exp_kwh) AS exp_kwh,
        count(*) FILTER (WHERE has_imp AND imp_kwh IS NULL) AS bad_imp,
        count(*) FILTER (WHERE has_exp AND exp_kwh IS NULL) AS bad_exp
    FROM TUMBLE(steps, at, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    GROUP BY meter_id, window_start, window_end
),
windows AS (
    SELECT DISTINCT window_start, window_end FROM TUMBLE(steps, at, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
),
members AS (
    SELECT a.area_id, a.meter_id, a.role, a.multiplier, w.window_start, w.window_end FROM windows w CROSS JOIN area_meters a
),
joined AS (
    SELECT
        m.area_id,
        m.role,
        m.window_start,
        m.window_end,
        coalesce(
            d.covered_s BETWEEN 86400 * (100 - $tolerance_pct) / 100 AND 86400 * (100 + $tolerance_pct) / 100
                AND CASE m.role WHEN 'generation' THEN d.exp_kwh IS NOT NULL AND d.bad_exp = 0
                    ELSE d.imp_kwh IS NOT NULL AND d.bad_imp = 0 AND d.bad_exp = 0 END,
            false
        ) AS complete,
        CAST(d.imp_kwh * m.multiplier AS DECIMAL(24, 6)) AS imp_kwh,
        CAST(d.exp_kwh * m.multiplier AS DECIMAL(24, 6)) AS exp_kwh
    FROM members m
    LEFT JOIN days d ON d.meter_id = m.meter_id AND d.window_start = m.window_start
),
areas AS (
    SELECT
        area_id,
        window_start,
        window_end,
        sum(imp_kwh) FILTER (WHERE complete AND role = 'supply') AS supplied_kwh,
        coalesce(sum(exp_kwh) FILTER (WHERE complete AND role = 'generation'), 0) AS generated_kwh,
        coalesce(sum(exp_kwh) FILTER (WHERE complete AND role = 'supply'), 0) AS exported_kwh,
        coalesce(sum(imp_kwh) FILTER (WHERE complete AND role = 'consumption'), 0) AS consumed_kwh,
        count(*) AS meters,
        count(*) FILTER (WHERE complete) AS meters_complete,
        count(*) FILTER (WHERE role = 'supply') AS gates,
        count(*) FILTER (WHERE role = 'supply' AND complete) AS gates_complete
    FROM joined
    GROUP BY area_id, window_start, window_end
)
SELECT
    area_id,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_date,
    supplied_kwh,
    generated_kwh,
    exported_kwh,
    consumed_kwh,
    supplied_kwh + generated_kwh - exported_kwh - consumed_kwh AS loss_kwh,
    CAST(
        100 * (supplied_kwh + generated_kwh - exported_kwh - consumed_kwh) / nullif(supplied_kwh + generated_kwh, 0) AS DECIMAL(18, 6)
    ) AS loss_pct,
    meters,
    meters_complete,
    round(100 * CAST(meters_complete AS DOUBLE) / meters, 6) AS complete_pct,
    $normal_pct AS normal_upto_pct,
    $abnormal_pct AS abnormal_above_pct,
    CASE
        WHEN gates = 0 OR gates_complete < gates OR meters_complete * 100 < $min_complete_pct * meters THEN 'insufficient_data'
        WHEN supplied_kwh + generated_kwh <= 0 THEN 'insufficient_data'
        WHEN consumed_kwh + exported_kwh > supplied_kwh + generated_kwh THEN 'abnormal'
        WHEN 100 * (supplied_kwh + generated_kwh - exported_kwh - consumed_kwh) <= $normal_pct * (supplied_kwh + generated_kwh) THEN 'normal'
        WHEN 100 * (supplied_kwh + generated_kwh - exported_kwh - consumed_kwh) <= $abnormal_pct * (supplied_kwh + generated_kwh) THEN 'watch'
        ELSE 'abnormal'
    END AS verdict
FROM areas
