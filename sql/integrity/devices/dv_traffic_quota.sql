/*---
id          = "dv_traffic_quota"
kind        = "alert"
title       = "SIM card has used more than 90 % of its monthly traffic"
title_zh    = "SIM卡流量接近套餐上限"
severity    = "info"
entity      = "device_id"
category    = "device"
unit        = "MB"
standard    = "internal"
owner       = "operations"
description = """
Compares the traffic since the beginning of the month (named metric `sim_month_mb`, as the carrier or the terminal counts
it) with the quota of the card, `limit_high` of the row `sim_month_mb` of the device in `device_limits` that is valid at
that time. Fires above `share_pct` of the quota, `warning` above all of it; a value equal to a limit is inside. Resolves
with the first value inside, when the counter begins anew. Beyond the quota a terminal is cut off or costs more.
Devices without such a row are not judged. Not seen: how fast it is used, and traffic that the carrier counts later.
"""
params      = { share_pct = 90.0 }
---*/
SELECT
    device_id,
    ts,
    used_mb * 100 > quota_mb * $share_pct AS firing,
    CASE WHEN used_mb > quota_mb THEN 'warning' ELSE 'info' END AS severity,
    used_mb AS measured,
    CAST(quota_mb * $share_pct / 100 AS DECIMAL(24, 6)) AS limit_high,
    'MB' AS unit,
    quota_mb
FROM (
    SELECT
        r.device_id,
        r.ts,
        TRY_CAST(r.value AS DECIMAL(18, 6)) AS used_mb,
        TRY_CAST(l.limit_high AS DECIMAL(18, 3)) AS quota_mb
    FROM device_metrics r
    JOIN device_limits l ON l.device_id = r.device_id AND l.metric_name = 'sim_month_mb'
    WHERE r.metric_name = 'sim_month_mb' AND r.value >= 0
) s
WHERE used_mb IS NOT NULL AND quota_mb > 0
