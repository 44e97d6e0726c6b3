/*---
id          = "dv_values"
kind        = "view"
title       = "Values of the samples of devices, one row a value"
title_zh    = "设备采样值逐项展开"
category    = "device"
entity      = ["device_id", "metric"]
standard    = "internal"
owner       = "operations"
description = """
Puts the core columns of a sample (`cpu_pct`, `rssi_dbm`, ...) and its named value (`metric_name`, `value`) under each
other, as exact decimals of six digits, so that a rule is written once for all of them. `device_type` is that of the
sample, else that of the reference table `devices` at its time. Left out are values that were not measured, and those that
cannot be: shares outside 0 to 100 %, temperatures outside -60 to 150 Cel, signal strengths outside -200 to -1 dBm (modems
give 0 or 99 for "not known"), and numbers of more than 24 digits.
A metric that is named like a core column is the same series as that.
"""
---*/
SELECT device_id, device_type, ts, metric, value
FROM (
    SELECT
        device_id,
        device_type,
        ts,
        sample['metric'] AS metric,
        TRY_CAST(sample['value'] AS DECIMAL(24, 6)) AS value
    FROM (
        SELECT device_id, device_type, ts, unnest(samples) AS sample
        FROM (
            SELECT
                r.device_id,
                coalesce(r.device_type, d.device_type) AS device_type,
                r.ts,
                [
                    named_struct('metric', 'cpu_pct', 'value', CASE WHEN r.cpu_pct BETWEEN 0 AND 100 THEN r.cpu_pct END),
                    named_struct('metric', 'mem_pct', 'value', CASE WHEN r.mem_pct BETWEEN 0 AND 100 THEN r.mem_pct END),
                    named_struct('metric', 'disk_pct', 'value', CASE WHEN r.disk_pct BETWEEN 0 AND 100 THEN r.disk_pct END),
                    named_struct('metric', 'temp_c', 'value', CASE WHEN r.temp_c BETWEEN -60 AND 150 THEN r.temp_c END),
                    named_struct('metric', 'rssi_dbm', 'value', CASE WHEN r.rssi_dbm BETWEEN -200 AND -1 THEN r.rssi_dbm END),
                    named_struct('metric', 'snr_db', 'value', r.snr_db),
                    named_struct('metric', 'loss_pct', 'value', CASE WHEN r.loss_pct BETWEEN 0 AND 100 THEN r.loss_pct END),
                    named_struct('metric', 'clock_offset_ms', 'value', r.clock_offset_ms),
                    named_struct(
                        'metric', r.metric_name,
                        'value', CASE
                            WHEN r.metric_name IN ('cpu_pct', 'mem_pct', 'disk_pct', 'loss_pct')
                                THEN CASE WHEN r.value BETWEEN 0 AND 100 THEN r.value END
                            WHEN r.metric_name = 'temp_c' THEN CASE WHEN r.value BETWEEN -60 AND 150 THEN r.value END
                            WHEN r.metric_name = 'rssi_dbm' THEN CASE WHEN r.value BETWEEN -200 AND -1 THEN r.value END
                            ELSE r.value
                        END
                    )
                ] AS samples
            FROM device_metrics r
            LEFT JOIN devices d ON d.device_id = r.device_id
        ) s
    ) l
) v
WHERE value IS NOT NULL
