/*---
id          = "dv_cpu"
kind        = "alert"
title       = "Processor use above 90 % for 10 minutes"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "%"
standard    = "internal"
owner       = "operations"
description = """
Fires when all samples of the last 10 minutes or longer lie above `limit_pct`, from the first of them to the newest; resolves
with the first sample that does not. A value equal to the limit is inside. The period of the samples does not matter, but a
pause of more than 20 minutes between two samples begins anew. A processor that is busy for so long falls behind with
its readings. It cannot see what happens between two samples; samples without `cpu_pct` and values below 0 or above 100
are left out.
"""
params      = { limit_pct = 90.0 }
---*/
SELECT
    device_id,
    ts,
    above AND ts >= since + INTERVAL '10 minutes' AS firing,
    cpu_pct AS measured,
    $limit_pct AS limit_high,
    '%' AS unit,
    CASE WHEN above THEN since END AS above_since
FROM (
    -- The newest first sample above the limit; it means nothing while a sample is not above.
    SELECT device_id, ts, cpu_pct, above, max(began) OVER (PARTITION BY device_id ORDER BY ts) AS since
    FROM (
        SELECT
            device_id,
            ts,
            cpu_pct,
            above,
            CASE
                WHEN above AND NOT coalesce(before_above AND ts <= before_ts + INTERVAL '20 minutes', false) THEN ts
            END AS began
        FROM (
            SELECT
                device_id,
                ts,
                used_pct AS cpu_pct,
                used_pct > $limit_pct AS above,
                lag(used_pct) OVER (PARTITION BY device_id ORDER BY ts) > $limit_pct AS before_above,
                lag(ts) OVER (PARTITION BY device_id ORDER BY ts) AS before_ts
            FROM (SELECT *, TRY_CAST(cpu_pct AS DECIMAL(9, 6)) AS used_pct FROM device_metrics) c
            WHERE used_pct BETWEEN 0 AND 100
        ) b
    ) a
) s
