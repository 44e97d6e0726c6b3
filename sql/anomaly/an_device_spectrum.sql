/*---
id            = "an_device_spectrum"
kind          = "alert"
title         = "Metric of a device stands out from its rhythm"
title_zh      = "设备指标偏离其周期规律"
severity      = "info"
entity        = ["device_id", "metric_name"]
category      = "anomaly"
unit          = "1"
standard      = "internal"
owner         = "analytics"
resolve_after = 5
description   = """
Looks at each metric of each device as a wave: `spectral_residual` takes away what repeats in the last 128 values and tells how
much the newest one stands out of the rest, which is more than `limit` times the mean of the 21 values before it. It needs no
limits of the metric and no clock, and sees a spike within the usual range, where neither a limit nor a mean does: a burst of
traffic at night, a pause at noon. The metrics are those that `metrics` matches. Nothing is said in the first 123 values of a
series. Kept are 1 KB for each. A level that stays changed is told once, at its beginning. Not seen: what comes slowly, and
values that come at uneven times look like a change of rhythm.
"""
[params]
limit   = 3.0
metrics = "^(cpu_pct|mem_pct|temp_c|rtt_ms|queue.*|.*_rate)$"
---*/
SELECT
    device_id,
    metric_name,
    ts,
    saliency > $limit AS firing,
    saliency AS measured,
    $limit AS limit_high,
    value
FROM (
    SELECT
        device_id,
        metric_name,
        ts,
        value,
        round(spectral_residual(value, 128) OVER (PARTITION BY device_id, metric_name ORDER BY ts), 6) AS saliency
    FROM an_device_values
    WHERE regexp_like(metric_name, $metrics)
) s
