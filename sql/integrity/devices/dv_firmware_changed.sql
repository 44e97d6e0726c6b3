/*---
id          = "dv_firmware_changed"
kind        = "alert"
title       = "Device reports another firmware than before"
title_zh    = "固件版本变化"
severity    = "warning"
entity      = "device_id"
category    = "device"
standard    = "internal"
owner       = "operations"
description = """
One occurrence for each sample whose `firmware` differs from that of the sample before it; samples without one are left
out, and so is the space around the text. To be compared with the updates that were planned: a change that nobody
planned is a device that was swapped, or altered. It cannot see whether a change was planned, nor one that was taken
back between two samples, and the first sample of a device is never a change. Two samples of one instant are not
compared with each other.
"""
---*/
SELECT device_id, ts, previous_firmware, firmware, previous_ts
FROM (
    SELECT
        device_id,
        ts,
        trim(firmware) AS firmware,
        trim(lag(firmware) OVER (PARTITION BY device_id ORDER BY ts)) AS previous_firmware,
        lag(ts) OVER (PARTITION BY device_id ORDER BY ts) AS previous_ts
    FROM device_metrics
    WHERE trim(firmware) <> ''
) s
WHERE firmware <> previous_firmware AND ts > previous_ts
