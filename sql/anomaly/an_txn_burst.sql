/*---
id          = "an_txn_burst"
kind        = "alert"
title       = "Far more transactions in a minute than expected"
title_zh    = "业务量突增"
severity    = "warning"
entity      = "process_type"
category    = "anomaly"
unit        = "sigma"
standard    = "internal"
owner       = "analytics"
description = """
Counts the steps of each process in each minute and compares them with `expected_per_min` of `txn_baseline` for the hour
of local time: if they came by chance (Poisson), their standard deviation would be the square root of the expected
number. Fires when the count is more than `max_z` of these above it. A run of a batch, a double delivery, or fraud with a
script. Compared exactly: z is above the limit if the square of the difference is. Processes and hours without a baseline,
or with one of 0, are not judged; `an_txn_new_kind` tells new ones. Resolves with the next minute that has steps and is
within. Nothing is kept beyond the minute. Not seen: minutes without any step, which are an_txn_lull; holidays and the end
of the month, for which the baseline has versions.
"""
[params]
max_z = 5.0
zone  = "Asia/Shanghai"
---*/
SELECT
    process_type,
    window_start,
    window_end,
    steps > expected AND (steps - expected) * (steps - expected) > $max_z * $max_z * expected AS firing,
    round(CAST(steps - expected AS DOUBLE) / sqrt(CAST(expected AS DOUBLE)), 6) AS measured,
    $max_z AS limit_high,
    'sigma' AS unit,
    steps,
    expected,
    cases,
    operators
FROM (
    SELECT w.process_type, w.window_start, w.window_end, w.steps, w.cases, w.operators,
        TRY_CAST(b.expected_per_min AS DECIMAL(12, 4)) AS expected
    FROM (
        SELECT
            process_type,
            window_start,
            window_end,
            CAST(count(*) AS DECIMAL(12, 0)) AS steps,
            count(DISTINCT case_id) AS cases,
            count(DISTINCT operator_id) AS operators
        FROM TUMBLE(business_transactions, event_ts, INTERVAL '1 minute')
        GROUP BY process_type, window_start, window_end
    ) w
    JOIN txn_baseline b
        ON b.process_type = w.process_type AND b.local_hour = extract(hour FROM w.window_start AT TIME ZONE $zone)
    WHERE TRY_CAST(b.expected_per_min AS DECIMAL(12, 4)) > 0
) e
