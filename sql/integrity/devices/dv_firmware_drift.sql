/*---
id          = "dv_firmware_drift"
kind        = "alert"
title       = "Device runs another firmware than the registry says"
title_zh    = "固件版本与档案不符"
severity    = "warning"
entity      = "device_id"
category    = "device"
standard    = "internal"
owner       = "operations"
description = """
Compares `firmware` of a sample with that of the reference table `devices` that is valid at its time. Fires while they
differ: an update that was not done, or one that nobody planned. Resolves with the first sample that agrees, so plan an
update by a new row from its date on. Samples without a firmware and devices without one in the table are not judged;
space around the text does not count. A device that changed by itself is told at once by dv_firmware_changed.
Not seen: an altered program that reports the old version.
"""
---*/
SELECT
    r.device_id,
    r.ts,
    trim(r.firmware) <> trim(d.firmware) AS firing,
    trim(r.firmware) AS firmware,
    trim(d.firmware) AS registered_firmware,
    d.vendor
FROM device_metrics r
JOIN devices d ON d.device_id = r.device_id
WHERE trim(r.firmware) <> '' AND trim(d.firmware) <> ''
