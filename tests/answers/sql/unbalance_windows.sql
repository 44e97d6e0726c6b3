/*---
id          = "unbalance_windows"
kind        = "table"
title       = "Voltage unbalance of ten minutes"
entity      = ["source", "meter_id"]
owner       = "power quality"
unit        = "%"
standard    = "GB/T 15543-2008"
clause      = "4.1"
description = """
Of points that measure three voltages and their angles. `vuf_rms_pct` is the root mean square of the negative over the
positive sequence, minute by minute, which the standard limits to 2 %; `vuf_max_pct` the highest minute.
`nema_max_pct` is the highest deviation of a phase from the mean of the three, as NEMA MG 1 counts it. With each maximum
comes its first minute. The mean of the squares is one of decimals, so that it does not hang on the order in which they
are added.
"""
---*/
WITH minutes AS (
    SELECT
        source,
        meter_id,
        ts,
        local_ts,
        100 * greatest(abs(v_a - mean_v), abs(v_b - mean_v), abs(v_c - mean_v)) / mean_v AS nema_pct,
        voltage_unbalance_pct(v_a, ang_a, v_b, ang_b, v_c, ang_c) AS vuf_pct
    FROM (SELECT *, (v_a + v_b + v_c) / 3 AS mean_v FROM local_readings)
    WHERE mean_v > 0 AND ang_a IS NOT NULL AND ang_b IS NOT NULL AND ang_c IS NOT NULL
)
SELECT
    source,
    meter_id,
    window_start,
    window_end,
    max(nema_pct) AS nema_max_pct,
    first_value(local_ts ORDER BY nema_pct DESC, ts) AS nema_max_ts,
    max(vuf_pct) AS vuf_max_pct,
    first_value(local_ts ORDER BY vuf_pct DESC, ts) AS vuf_max_ts,
    sqrt(CAST(avg(TRY_CAST(vuf_pct * vuf_pct AS DECIMAL(24, 15))) AS DOUBLE)) AS vuf_rms_pct
FROM TUMBLE(minutes, ts, INTERVAL '10 minutes')
GROUP BY source, meter_id, window_start, window_end
