/*---
id          = "dv_on_battery"
kind        = "alert"
title       = "Device is not supplied from the mains"
title_zh    = "设备失去市电"
severity    = "warning"
entity      = "device_id"
category    = "device"
standard    = "internal"
owner       = "operations"
description = """
Fires when a sample says that the device runs on its battery, critical when it says that the supply is off; resolves with
the first sample that says `mains`. Samples without `power_state`, or with a word that is none of the three, say
nothing. A device on its battery falls silent when that is empty, and several of one place show a power cut. It cannot
see how long the battery will last: see dv_battery_low.
"""
---*/
SELECT
    device_id,
    ts,
    power_state IN ('battery', 'off') AS firing,
    CASE WHEN power_state = 'off' THEN 'critical' ELSE 'warning' END AS severity,
    power_state,
    battery_v
FROM device_metrics
WHERE power_state IN ('mains', 'battery', 'off')
