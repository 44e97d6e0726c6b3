/*---
id          = "dv_queue_growth"
kind        = "alert"
title       = "Queue of an application has grown for 10 minutes"
title_zh    = "队列持续增长"
severity    = "critical"
entity      = ["device_id", "queue"]
category    = "device"
unit        = "1"
standard    = "internal"
owner       = "operations"
description = """
Follows the named metric `queue_depth` of each queue (tag `queue`). Fires when each sample of at least `rise_s` seconds
was above the one before it, and the newest is at least `min_depth`: what takes from the queue stands still or is too
slow.
A pause of more than `pause_s` seconds between two samples begins anew. Resolves with the first sample that is not above
the one before it. `rising_since` is the sample from which it rose.
Not seen: a queue that grows with short falls between; a depth that must not be exceeded is a row of `device_limits`.
"""
params      = { rise_s = 600, pause_s = 600, min_depth = 100 }
---*/
SELECT
    device_id,
    queue,
    ts,
    CASE
        WHEN NOT rises THEN false
        WHEN depth >= $min_depth AND extract(epoch FROM ts) - extract(epoch FROM since) >= $rise_s THEN true
    END AS firing,
    depth AS measured,
    '1' AS unit,
    CASE WHEN rises THEN since END AS rising_since
FROM (
    -- The newest sample from which a rise began; it means nothing while a sample does not rise.
    SELECT *, max(began) OVER (PARTITION BY device_id, queue ORDER BY ts) AS since
    FROM (
        SELECT
            *,
            CASE
                WHEN rises AND NOT coalesce(lag(rises) OVER (PARTITION BY device_id, queue ORDER BY ts), false) THEN before_ts
            END AS began
        FROM (
            SELECT
                *,
                coalesce(
                    depth > before AND extract(epoch FROM ts) - extract(epoch FROM before_ts) <= $pause_s, false
                ) AS rises
            FROM (
                SELECT
                    device_id,
                    coalesce(tags['queue'], '') AS queue,
                    ts,
                    TRY_CAST(value AS DECIMAL(24, 6)) AS depth,
                    TRY_CAST(
                        lag(value) OVER (PARTITION BY device_id, coalesce(tags['queue'], '') ORDER BY ts) AS DECIMAL(24, 6)
                    ) AS before,
                    lag(ts) OVER (PARTITION BY device_id, coalesce(tags['queue'], '') ORDER BY ts) AS before_ts
                FROM device_metrics
                WHERE metric_name = 'queue_depth' AND value >= 0
            ) q
        ) r
    ) b
) s
