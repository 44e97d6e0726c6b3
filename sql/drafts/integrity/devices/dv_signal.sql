/*---
id          = "dv_signal"
kind        = "alert"
title       = "Mean signal strength of the hour below -100 dBm"
severity    = "info"
entity      = "device_id"
category    = "device"
unit        = "dBm"
standard    = "internal"
owner       = "operations"
description = """
Fires when the arithmetic mean of `rssi_dbm` over a UTC hour is below the limit; a mean equal to it is good. Weak signal is
the usual cause of readings that come late or not at all. Values of 0 and above, which modems give for "not known", and
values below -200 are left out; an hour without any other value says nothing. It cannot see noise, which may spoil a strong
signal, nor wired devices.
"""
params      = { limit_dbm = -100.0 }
---*/
WITH measured_samples AS (
    SELECT device_id, ts, TRY_CAST(rssi_dbm AS DECIMAL(12, 6)) AS rssi_dbm FROM device_metrics
)
SELECT
    device_id,
    window_start,
    window_end,
    mean_dbm < $limit_dbm AS firing,
    mean_dbm AS measured,
    $limit_dbm AS limit_low,
    'dBm' AS unit,
    lowest_dbm,
    samples
FROM (
    SELECT
        device_id,
        window_start,
        window_end,
        CAST(avg(rssi_dbm) AS DECIMAL(12, 6)) AS mean_dbm,
        min(rssi_dbm) AS lowest_dbm,
        count(*) AS samples
    FROM TUMBLE(measured_samples, ts, INTERVAL '1 hour')
    WHERE rssi_dbm >= -200 AND rssi_dbm < 0
    GROUP BY device_id, window_start, window_end
) h
