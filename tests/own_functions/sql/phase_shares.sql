/*---
id    = "phase_shares"
kind  = "table"
title = "How a feeder's load is spread over its phases, by the hour"
---*/
WITH loads AS (
  SELECT feeder, phase, window_start, window_end, avg(per_unit(current_a, 200)) AS load_pu, spread(current_a) AS spread_a
  FROM TUMBLE(feeder_loads, at, INTERVAL '1 hour')
  GROUP BY feeder, phase, window_start, window_end
)
SELECT *, share(load_pu) OVER (PARTITION BY feeder, window_start, window_end) AS share
FROM loads
