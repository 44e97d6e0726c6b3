/*---
id            = "dv_sparse"
kind          = "alert"
title         = "Device metric delivered too few samples in the hour"
severity      = "warning"
entity        = ["device_id", "metric_name"]
category      = "device"
unit          = "samples"
standard      = "internal"
owner         = "operations"
resolve_after = 1
description   = """
Fires when an hour holds fewer than `min_share_pct` of the samples that the device's period (`step_s` in the reference
table `devices`) promises; samples that repeat an instant count once. A device that sends nothing at all for an hour
makes no row and so no alert here: total silence needs a rule that expects rows from the registry. The first and the
last hour of a series are rarely full.
"""
params        = { min_share_pct = 80 }
---*/
SELECT
    device_id,
    metric_name,
    window_start,
    window_end,
    instants * 100 < expected * $min_share_pct AS firing,
    instants AS measured,
    CAST(expected * $min_share_pct AS DOUBLE) / 100 AS limit_low,
    'samples' AS unit,
    expected,
    samples
FROM (
    SELECT
        h.device_id,
        h.metric_name,
        h.window_start,
        h.window_end,
        h.samples,
        h.instants,
        3600 / d.step_s AS expected
    FROM dv_series_hours h
    JOIN devices d ON d.device_id = h.device_id
    WHERE d.step_s BETWEEN 1 AND 3600
) e
