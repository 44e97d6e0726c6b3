/*---
id          = "dv_disk"
kind        = "alert"
title       = "Fullest disk above 85 %"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "%"
standard    = "internal"
owner       = "operations"
description = """
Fires with the first sample above `limit_pct`, critical above `critical_pct`; a value equal to a limit is inside it. Resolves
at or below `clear_pct`: samples between that and the limit say nothing, so that a disk near the limit does not open one
alert after another. A full disk stops a device from storing readings. It cannot see which disk is meant, nor how fast it
fills; samples without `disk_pct` and values below 0 or above 100 are left out.
"""
params      = { limit_pct = 85.0, critical_pct = 95.0, clear_pct = 83.0 }
---*/
SELECT
    device_id,
    ts,
    CASE WHEN disk_pct > $limit_pct THEN true WHEN disk_pct <= $clear_pct THEN false END AS firing,
    CASE WHEN disk_pct > $critical_pct THEN 'critical' ELSE 'warning' END AS severity,
    disk_pct AS measured,
    $limit_pct AS limit_high,
    '%' AS unit
FROM (
    SELECT device_id, ts, TRY_CAST(disk_pct AS DECIMAL(9, 6)) AS disk_pct
    FROM device_metrics
) s
WHERE disk_pct BETWEEN 0 AND 100
