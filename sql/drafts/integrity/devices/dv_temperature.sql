/*---
id          = "dv_temperature"
kind        = "alert"
title       = "Device is too hot"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "Cel"
standard    = "internal"
owner       = "operations"
description = """
Fires with the first sample above the limit of the type of the device: `field_limit_c` for terminals, concentrators,
collectors and communication modules, `server_limit_c` for servers, switches and routers. A value equal to the limit is
inside. Resolves at or below the limit less `clear_margin_c`; samples between say nothing. Heat ages batteries and
capacitors and makes processors slow down. The type is that of the sample, else that of the reference table `devices` at
its time; a device of another or an unknown type is not judged. It cannot see where the sensor sits. Values outside
-60 to 150 are taken for a failed sensor and left out.
"""
params      = { field_limit_c = 70.0, server_limit_c = 85.0, clear_margin_c = 3.0 }
---*/
SELECT
    device_id,
    ts,
    CASE WHEN temp_c > limit_high THEN true WHEN temp_c <= limit_high - $clear_margin_c THEN false END AS firing,
    temp_c AS measured,
    limit_high,
    'Cel' AS unit,
    device_type
FROM (
    SELECT
        device_id,
        ts,
        temp_c,
        device_type,
        CASE
            WHEN device_type IN ('terminal', 'concentrator', 'collector', 'comm_module') THEN $field_limit_c
            WHEN device_type IN ('server', 'switch', 'router') THEN $server_limit_c
        END AS limit_high
    FROM (
        SELECT
            r.device_id,
            r.ts,
            TRY_CAST(r.temp_c AS DECIMAL(12, 6)) AS temp_c,
            coalesce(r.device_type, d.device_type) AS device_type
        FROM device_metrics r
        LEFT JOIN devices d ON d.device_id = r.device_id
    ) t
) s
WHERE temp_c BETWEEN -60 AND 150 AND limit_high IS NOT NULL
