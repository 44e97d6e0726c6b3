/*---
id          = "an_usage_weeks"
kind        = "table"
title       = "Energy of each customer and week, by register"
title_zh    = "客户周用电量"
category    = "anomaly"
entity      = "meter_id"
unit        = "kWh"
standard    = "internal"
owner       = "analytics"
key         = "meter_id"
description = """
One row per meter of kind `customer` and week (from Monday, UTC+8) with at least one import register: `kwh` is the last
register of the week less the last of the week before, over a rollover of a register of `digits` digits too. It is NULL if
the week before is missing, or if one of the two registers is older than a day at the end of its week: a gap is not low
use. `kwh` is in units of the register; a change of the transformer ratio shows as a change of use. Kept are the last
register and its time of each meter.
"""
params      = { digits = 6 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS week_from,
    CASE
        WHEN previous_end = window_start
            AND last_ts >= window_end - INTERVAL '1 day'
            AND previous_ts >= window_start - INTERVAL '1 day'
            THEN register_delta_kwh(previous_kwh, register_kwh, $digits)
    END AS kwh,
    register_kwh,
    last_ts,
    feeder
FROM (
    SELECT
        w.meter_id,
        w.window_start,
        w.window_end,
        w.register_kwh,
        w.last_ts,
        lag(w.register_kwh) OVER (PARTITION BY w.meter_id ORDER BY w.window_start) AS previous_kwh,
        lag(w.last_ts) OVER (PARTITION BY w.meter_id ORDER BY w.window_start) AS previous_ts,
        lag(w.window_end) OVER (PARTITION BY w.meter_id ORDER BY w.window_start) AS previous_end,
        m.feeder
    FROM (
        SELECT
            meter_id,
            window_start,
            window_end,
            last_value(energy_imp_kwh ORDER BY ts) AS register_kwh,
            max(ts) AS last_ts
        FROM TUMBLE(meter_readings, ts, INTERVAL '7 days', 'Asia/Shanghai', DATE '1970-01-05')
        WHERE energy_imp_kwh IS NOT NULL
        GROUP BY meter_id, window_start, window_end
    ) w
    JOIN meters m ON m.meter_id = w.meter_id
    WHERE m.kind = 'customer'
) r
