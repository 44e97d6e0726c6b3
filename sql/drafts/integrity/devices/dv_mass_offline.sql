/*---
id          = "dv_mass_offline"
kind        = "alert"
title       = "More than 5 % of the devices of a type gave no answer for 15 minutes"
severity    = "critical"
entity      = "device_type"
category    = "device"
unit        = "%"
standard    = "internal"
owner       = "operations"
description = """
Fires when in a window of 15 minutes more than `limit_pct` of the registered devices of a type, and at least `min_devices`
of them, gave no answer: nothing came, or only samples that say `online = false`. This points at a common cause, such as a
network, a head end or a power cut, to be looked at before the single devices of dv_silent. Which devices are counted is
said in dv_answer_windows. It cannot see where the devices stand, as the registry has no area: an outage of one district
is seen only if it is large among all devices of the type.
"""
params      = { limit_pct = 5.0, min_devices = 20 }
---*/
SELECT
    device_type,
    window_start,
    window_end,
    offline * 100 > installed * $limit_pct AND offline >= $min_devices AS firing,
    CAST(CAST(offline AS DECIMAL(12, 0)) * 100 / installed AS DECIMAL(12, 6)) AS measured,
    $limit_pct AS limit_high,
    '%' AS unit,
    offline,
    installed
FROM (
    SELECT
        device_type,
        window_start,
        window_end,
        count(*) FILTER (WHERE answers = 0) OVER (PARTITION BY device_type, window_start) AS offline,
        count(*) OVER (PARTITION BY device_type, window_start) AS installed,
        row_number() OVER (PARTITION BY device_type, window_start ORDER BY device_id) AS nth
    FROM (
        SELECT coalesce(device_type, 'unknown') AS device_type, device_id, window_start, window_end, answers
        FROM dv_answer_windows
    ) a
) t
WHERE nth = 1
