/*---
id          = "register_days"
kind        = "table"
title       = "First and last register reading of a day"
entity      = "meter_id"
owner       = "metering"
unit        = "kWh"
standard    = "internal"
description = "Of each meter and day of UTC. The advance over a longer time is the last of the last day less the first of the first."
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    first_value(TRY_CAST(e_kwh AS DECIMAL(18, 5)) ORDER BY ts) AS first_kwh,
    last_value(TRY_CAST(e_kwh AS DECIMAL(18, 5)) ORDER BY ts) AS last_kwh
FROM TUMBLE(readings, ts, INTERVAL '1 day')
WHERE e_kwh IS NOT NULL
GROUP BY meter_id, window_start, window_end
