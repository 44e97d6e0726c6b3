/*---
id          = "dv_clock_offset"
kind        = "alert"
title       = "Clock of the device is off"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "ms"
standard    = "internal"
owner       = "operations"
description = """
Fires when `clock_offset_ms` is farther from zero, in either direction, than the limit of the type of the device: 60 s for
terminals, concentrators, collectors and communication modules, 1 s for servers, switches and routers. A value equal to the
limit is inside; resolves with the first sample inside. Readings that a device dates wrongly end in the wrong interval and
at the wrong tariff. The type is that of the sample, else that of the reference table `devices` at its time; a device of
another or an unknown type is not judged. It sees only the offset that the source measured, not that of the source's own
clock.
"""
params      = { field_limit_ms = 60000, server_limit_ms = 1000 }
---*/
SELECT
    device_id,
    ts,
    offset_ms > limit_ms OR offset_ms < -limit_ms AS firing,
    offset_ms AS measured,
    -limit_ms AS limit_low,
    limit_ms AS limit_high,
    'ms' AS unit,
    device_type
FROM (
    SELECT
        device_id,
        ts,
        offset_ms,
        device_type,
        CASE
            WHEN device_type IN ('terminal', 'concentrator', 'collector', 'comm_module') THEN $field_limit_ms
            WHEN device_type IN ('server', 'switch', 'router') THEN $server_limit_ms
        END AS limit_ms
    FROM (
        SELECT
            r.device_id,
            r.ts,
            TRY_CAST(r.clock_offset_ms AS DECIMAL(24, 6)) AS offset_ms,
            coalesce(r.device_type, d.device_type) AS device_type
        FROM device_metrics r
        LEFT JOIN devices d ON d.device_id = r.device_id
    ) t
) s
WHERE offset_ms IS NOT NULL AND limit_ms IS NOT NULL
