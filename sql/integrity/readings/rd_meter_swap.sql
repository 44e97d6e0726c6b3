/*---
id          = "rd_meter_swap"
kind        = "alert"
title       = "Meter was exchanged without closing and opening register"
title_zh    = "换表缺少止起码"
severity    = "warning"
entity      = ["service_point_id", "meter_id"]
category    = "integrity"
unit        = "h"
standard    = "internal"
owner       = "metering"
description = """
A meter that reports from a service point for the first time, after another one reported from there, is an exchange. It
must have an event `meter_swap` of that service point with the closing register of the old meter (`value_before`) and the
opening register of the new one (`value_after`), from a day before the last reading of the old meter to a day after the
first one of the new meter. Fires if there is none with both: the energy between the two readings is in no bill.
`measured` is the time between these readings in hours. Where both registers are known, the row says so (`firing` false)
and `between_kwh` is the energy that the two meters counted in that time.
Judged are readings with `service_point_id`. A second meter of a service point, such as a check meter, is taken for an
exchange once. Not seen: an exchange at which the new meter keeps the identity of the old one (see rd_register_rollback);
an alert is not taken back when the registers come later.
"""
---*/
WITH firsts AS (
    SELECT service_point_id, meter_id, ts, energy_imp_kwh, old_meter_id, old_ts, old_kwh
    FROM (
        SELECT
            service_point_id,
            meter_id,
            ts,
            energy_imp_kwh,
            lag(meter_id) OVER (PARTITION BY service_point_id ORDER BY ts) AS old_meter_id,
            lag(ts) OVER (PARTITION BY service_point_id ORDER BY ts) AS old_ts,
            lag(energy_imp_kwh) OVER (PARTITION BY service_point_id ORDER BY ts) AS old_kwh,
            row_number() OVER (PARTITION BY service_point_id, meter_id ORDER BY ts) AS nth
        FROM meter_readings
        WHERE service_point_id IS NOT NULL
    ) r
    WHERE nth = 1 AND old_meter_id <> meter_id
)
SELECT
    f.service_point_id,
    f.meter_id,
    f.ts,
    e.start_ts IS NULL AS firing,
    TRY_CAST((extract(epoch FROM f.ts) - extract(epoch FROM f.old_ts)) / 3600 AS DECIMAL(15, 3)) AS measured,
    'h' AS unit,
    f.old_meter_id,
    f.old_ts,
    e.start_ts AS swapped_at,
    e.value_before AS closing_kwh,
    e.value_after AS opening_kwh,
    TRY_CAST(
        TRY_CAST(e.value_before AS DECIMAL(18, 4)) - f.old_kwh + f.energy_imp_kwh - TRY_CAST(e.value_after AS DECIMAL(18, 4))
        AS DECIMAL(18, 4)
    ) AS between_kwh
FROM firsts f
LEFT JOIN meter_events e
    ON e.service_point_id = f.service_point_id
    AND e.event_code = 'meter_swap'
    AND e.value_before IS NOT NULL
    AND e.value_after IS NOT NULL
    AND e.start_ts >= f.ts - INTERVAL '30 days'
    AND e.start_ts >= f.old_ts - INTERVAL '1 day'
    AND e.start_ts <= f.ts + INTERVAL '1 day'
