/*---
id          = "dv_latency"
kind        = "alert"
title       = "Round-trip time of a device twice what it usually is"
title_zh    = "通信时延异常升高"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "ms"
standard    = "internal"
owner       = "operations"
description = """
Takes the 95 % value (nearest rank) of `rtt_ms` over 5 minutes and compares it with the usual round-trip time, the
median of the 5-minute medians of the 7 days before. Fires above `factor` times that, and above `min_ms`, below which
nobody notices; a value equal to a limit is inside. Resolves with the first window inside. It takes `min_windows`
windows before. Negative values are left out. Loss of packets has its row in `device_type_limits`.
A slow line that stays slow is the usual one after 3.5 days, and the alert resolves. Not seen: on which section of the way
time is lost.
"""
params      = { factor = 2.0, min_ms = 20.0, min_windows = 72 }
---*/
WITH windows AS (
    SELECT
        device_id,
        window_start,
        window_end,
        count(*) AS samples,
        nearest_rank_percentile(rtt_ms, 0.95) AS p95_ms,
        CAST(median(rtt_ms) AS DECIMAL(18, 6)) AS middle_ms
    FROM TUMBLE((
        SELECT device_id, ts, TRY_CAST(rtt_ms AS DECIMAL(15, 6)) AS rtt_ms FROM device_metrics
    ), ts, INTERVAL '5 minutes')
    WHERE rtt_ms >= 0
    GROUP BY device_id, window_start, window_end
)
SELECT
    device_id,
    window_start,
    window_end,
    p95_ms > greatest(usual_ms * $factor, $min_ms) AS firing,
    p95_ms AS measured,
    greatest(usual_ms * $factor, $min_ms) AS limit_high,
    'ms' AS unit,
    usual_ms,
    samples,
    windows_before
FROM (
    SELECT
        device_id,
        window_start,
        window_end,
        samples,
        TRY_CAST(p95_ms AS DECIMAL(18, 6)) AS p95_ms,
        CAST(median(middle_ms) OVER w AS DECIMAL(18, 6)) AS usual_ms,
        count(middle_ms) OVER w AS windows_before
    FROM windows
    WINDOW w AS (
        PARTITION BY device_id ORDER BY window_start
        RANGE BETWEEN INTERVAL '7 days' PRECEDING AND INTERVAL '5 minutes' PRECEDING
    )
) u
WHERE windows_before >= $min_windows
