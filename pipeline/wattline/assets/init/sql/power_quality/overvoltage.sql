/*---
id       = "overvoltage"
kind     = "alert"
title    = "Mean voltage of 10 minutes above +7 % of nominal"
severity = "warning"
entity   = "meter_id"
standard = "GB/T 12325-2008"
clause   = "4"
owner    = "you"
params   = { upper_pct = 7.0 }
---*/
-- `firing` makes this a condition: true opens the alert of the meter, false resolves it.
-- Voltages are compared as decimals: in binary floating point 235.4 V would be above 220 V + 7 %.
SELECT
    w.meter_id,
    w.window_start,
    w.window_end,
    w.mean_v > m.nominal_v * (1 + $upper_pct / 100) AS firing,
    w.mean_v AS measured,
    CAST(m.nominal_v * (1 + $upper_pct / 100) AS DECIMAL(12, 3)) AS limit_high,
    'V' AS unit,
    w.samples
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(u_a_v) AS samples,
        CAST(avg(TRY_CAST(u_a_v AS DECIMAL(12, 6))) AS DECIMAL(12, 6)) AS mean_v
    FROM TUMBLE(meter_readings, ts, INTERVAL '10 minutes')
    GROUP BY meter_id, window_start, window_end
) w
JOIN meters m ON m.meter_id = w.meter_id
WHERE w.mean_v IS NOT NULL
