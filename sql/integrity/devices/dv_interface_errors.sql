/*---
id          = "dv_interface_errors"
kind        = "alert"
title       = "Interface of a device counted errors"
title_zh    = "接口误码"
severity    = "warning"
entity      = ["device_id", "interface"]
category    = "device"
unit        = "errors"
standard    = "internal"
owner       = "operations"
description = """
Adds up by how much the counter `interface_errors` (a named metric) of each interface (tag `interface`) advanced in 15
minutes and fires above `max_errors`: a bad cable, a duplex mismatch, a failing port. A counter that is lower than before
was reset and counts what it shows. An advance belongs to the window of the sample that shows it. Resolves with a window
that has no more than `max_errors`; one without a sample says nothing.
A link that is down, a supply or a fan that failed have their rows in `device_type_limits` (`link_up`, `power_supply_ok`,
`fan_ok`). Not seen: the first value of a counter, and errors that the device does not count.
"""
params      = { max_errors = 10 }
---*/
SELECT
    device_id,
    interface,
    window_start,
    window_end,
    errors > $max_errors AS firing,
    errors AS measured,
    $max_errors AS limit_high,
    'errors' AS unit,
    samples
FROM (
    SELECT device_id, interface, window_start, window_end, sum(advance) AS errors, count(*) AS samples
    FROM TUMBLE((
        SELECT
            device_id,
            interface,
            ts,
            CASE WHEN counter >= previous THEN counter - previous ELSE counter END AS advance
        FROM (
            SELECT
                device_id,
                coalesce(tags['interface'], '') AS interface,
                ts,
                TRY_CAST(value AS DECIMAL(24, 0)) AS counter,
                TRY_CAST(
                    lag(value) OVER (PARTITION BY device_id, coalesce(tags['interface'], '') ORDER BY ts) AS DECIMAL(24, 0)
                ) AS previous
            FROM device_metrics
            WHERE metric_name = 'interface_errors' AND value >= 0
        ) c
        WHERE previous IS NOT NULL
    ), ts, INTERVAL '15 minutes')
    GROUP BY device_id, interface, window_start, window_end
) w
WHERE errors IS NOT NULL
