/*---
id          = "rd_demand_windows"
kind        = "table"
title       = "Mean power of each meter in complete 15-minute windows (demand)"
category    = "integrity"
entity      = "meter_id"
unit        = "kW"
standard    = "internal"
owner       = "metering"
description = """
Block demand: the mean power of a 15-minute UTC window, only where exactly `samples` readings with a power value exist,
each of another instant, so that a gap can neither raise nor lower a maximum demand. The maximum of a month is `max(demand_kw)` over these rows.
"""
params      = { samples = 15 }
---*/
SELECT meter_id, window_start, window_end, demand_kw
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(TRY_CAST(p_kw AS DECIMAL(18, 6))) AS samples,
        count(DISTINCT CASE WHEN TRY_CAST(p_kw AS DECIMAL(18, 6)) IS NOT NULL THEN ts END) AS instants,
        CAST(avg(TRY_CAST(p_kw AS DECIMAL(18, 6))) AS DECIMAL(21, 9)) AS demand_kw
    FROM TUMBLE(meter_readings, ts, INTERVAL '15 minutes')
    GROUP BY meter_id, window_start, window_end
) w
WHERE samples = $samples AND instants = $samples AND demand_kw IS NOT NULL
