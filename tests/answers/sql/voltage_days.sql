/*---
id          = "voltage_days"
kind        = "table"
title       = "Voltages of a day that are beyond the limits of several nominal voltages"
entity      = ["source", "meter_id", "nominal_v"]
owner       = "power quality"
standard    = "GB/T 12325-2008"
clause      = "4.3"
description = """
What the qualification rate is made of: single voltages of all phases of a meter (`samples`) and those beyond a limit
(`outside`), for each row of the table `nominal_voltages`; equal to a limit is inside. Days are those of UTC: rates of
longer times are sums over them.
"""
[params]
upper_pct = 7.0
lower_pct = 10.0
---*/
SELECT
    v.source,
    v.meter_id,
    n.nominal_v,
    window_start,
    window_end,
    count(*) AS samples,
    count(*) FILTER (
        WHERE v.v > n.nominal_v * (100 + $upper_pct) / 100 OR v.v < n.nominal_v * (100 - $lower_pct) / 100
    ) AS outside
FROM TUMBLE(phase_voltages, ts, INTERVAL '1 day') v
CROSS JOIN nominal_voltages n
GROUP BY v.source, v.meter_id, n.nominal_v, window_start, window_end
