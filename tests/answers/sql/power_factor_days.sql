/*---
id          = "power_factor_days"
kind        = "table"
title       = "Minutes of a day with a low power factor"
entity      = "meter_id"
owner       = "metering"
standard    = "internal"
description = """
Of each meter and day of UTC: minutes with more than `idle_kw` (`considered`), and those of them whose power factor
p / sqrt(p² + q²) is below `limit`; equal to it is enough.
"""
[params]
idle_kw = 0.1
limit   = 0.9
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    count(*) AS considered,
    count(*) FILTER (WHERE p < $limit * sqrt(p * p + q * q)) AS low
FROM TUMBLE((SELECT meter_id, ts, p_kw AS p, q_kvar AS q FROM readings WHERE p_kw > $idle_kw), ts, INTERVAL '1 day')
GROUP BY meter_id, window_start, window_end
