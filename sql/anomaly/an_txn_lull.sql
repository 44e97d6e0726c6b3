/*---
id          = "an_txn_lull"
kind        = "alert"
title       = "Far fewer transactions than expected"
title_zh    = "业务量异常减少"
severity    = "critical"
entity      = "process_type"
category    = "anomaly"
unit        = "sigma"
standard    = "internal"
owner       = "analytics"
description = """
Counts the steps of each process of `txn_baseline` in 15 minutes, also where there are none, and compares them with 15
times `expected_per_min` for the hour of local time, as an_txn_burst does. Fires when the count is more than `max_z`
standard deviations (square roots of the expected number) below: a channel is down, an interface lost its link. Needs at
least `min_expected` steps to be expected, as nothing can be far below a few. Resolves with the next window that is within
and for which enough is expected. Nothing is kept beyond the window. Not seen: that all processes stand still, as then no
time passes; holidays, for which the baseline has versions.
"""
[params]
max_z        = 5.0
min_expected = 30
zone         = "Asia/Shanghai"
---*/
WITH counted AS (
    SELECT process_type, window_start, CAST(count(*) AS DECIMAL(12, 0)) AS steps
    FROM TUMBLE(business_transactions, event_ts, INTERVAL '15 minutes')
    GROUP BY process_type, window_start, window_end
),
windows AS (
    SELECT DISTINCT window_start, window_end
    FROM TUMBLE(business_transactions, event_ts, INTERVAL '15 minutes')
),
expected AS (
    SELECT b.process_type, w.window_start, w.window_end, TRY_CAST(b.expected_per_min AS DECIMAL(12, 4)) * 15 AS expected
    FROM windows w
    JOIN txn_baseline b ON b.local_hour = extract(hour FROM w.window_start AT TIME ZONE $zone)
)
SELECT
    process_type,
    window_start,
    window_end,
    steps < expected AND (expected - steps) * (expected - steps) > $max_z * $max_z * expected AS firing,
    round(CAST(steps - expected AS DOUBLE) / sqrt(CAST(expected AS DOUBLE)), 6) AS measured,
    -$max_z AS limit_low,
    'sigma' AS unit,
    steps,
    expected
FROM (
    SELECT e.process_type, e.window_start, e.window_end, e.expected, coalesce(c.steps, 0) AS steps
    FROM expected e
    LEFT JOIN counted c ON c.process_type = e.process_type AND c.window_start = e.window_start
    WHERE e.expected >= $min_expected
) x
