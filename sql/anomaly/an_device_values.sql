/*---
id          = "an_device_values"
kind        = "view"
title       = "Values of each device, one metric a row"
title_zh    = "设备指标长表"
category    = "anomaly"
entity      = ["device_id", "metric_name"]
standard    = "internal"
owner       = "analytics"
description = """
The samples of `device_metrics` in long form: `value` under its `metric_name`, and each core column that a sample carries
as a metric of its own name. Heartbeats are left out, and so are values beyond 10^12,
which no running mean would forget.
"""
---*/
SELECT device_id, ts, metric_name, value FROM device_metrics
WHERE value BETWEEN -1e12 AND 1e12 AND metric_name <> 'heartbeat'
UNION ALL
SELECT device_id, ts, 'cpu_pct', cpu_pct FROM device_metrics WHERE cpu_pct BETWEEN -1e12 AND 1e12
UNION ALL
SELECT device_id, ts, 'mem_pct', mem_pct FROM device_metrics WHERE mem_pct BETWEEN -1e12 AND 1e12
UNION ALL
SELECT device_id, ts, 'temp_c', temp_c FROM device_metrics WHERE temp_c BETWEEN -1e12 AND 1e12
UNION ALL
SELECT device_id, ts, 'rtt_ms', rtt_ms FROM device_metrics WHERE rtt_ms BETWEEN -1e12 AND 1e12
UNION ALL
SELECT device_id, ts, 'loss_pct', loss_pct FROM device_metrics WHERE loss_pct BETWEEN -1e12 AND 1e12
UNION ALL
SELECT device_id, ts, 'rssi_dbm', rssi_dbm FROM device_metrics WHERE rssi_dbm BETWEEN -1e12 AND 1e12
