/*---
id          = "dv_packet_loss"
kind        = "alert"
title       = "Mean packet loss of 5 minutes above 5 %"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "%"
standard    = "internal"
owner       = "operations"
description = """
Fires when the arithmetic mean of `loss_pct` over 5 minutes exceeds the limit; a mean equal to it is inside. Each sample
counts the same, whatever number of packets it stands for. Values below 0 or above 100 are left out; a window without any
other value says nothing. It cannot see on which section of the way packets are lost; a device of which nothing arrives is
the matter of dv_silent.
"""
params      = { limit_pct = 5.0 }
---*/
WITH measured_samples AS (
    SELECT device_id, ts, TRY_CAST(loss_pct AS DECIMAL(12, 6)) AS loss_pct FROM device_metrics
)
SELECT
    device_id,
    window_start,
    window_end,
    mean_pct > $limit_pct AS firing,
    mean_pct AS measured,
    $limit_pct AS limit_high,
    '%' AS unit,
    highest_pct,
    samples
FROM (
    SELECT
        device_id,
        window_start,
        window_end,
        CAST(avg(loss_pct) AS DECIMAL(12, 6)) AS mean_pct,
        max(loss_pct) AS highest_pct,
        count(*) AS samples
    FROM TUMBLE(measured_samples, ts, INTERVAL '5 minutes')
    WHERE loss_pct BETWEEN 0 AND 100
    GROUP BY device_id, window_start, window_end
) w
