/*---
id          = "dv_mass_offline"
kind        = "alert"
title       = "More than 5 % of the devices of an area give no answer"
title_zh    = "区域设备大面积离线"
severity    = "critical"
entity      = "area"
category    = "device"
unit        = "%"
standard    = "internal"
owner       = "operations"
description = """
Fires when more than `limit_pct` of the registered devices of an area (`area` of the reference table `devices`), and at
least `min_devices` of them, have not answered for more than `offline_s` seconds and three of their own periods: a
common cause, such as a network, a head end or a power cut, to be looked at before the single devices of dv_silent. A
share equal to the limit is good. Judged minute by minute (see dv_silence); devices without an area are one area,
`unknown`.
Not seen: an outage of a part of an area that is small in it; divide areas as networks and feeders are divided.
"""
params      = { limit_pct = 5.0, min_devices = 20, offline_s = 900 }
---*/
SELECT
    area,
    window_start,
    window_end,
    offline * 100 > installed * $limit_pct AND offline >= $min_devices AS firing,
    CAST(CAST(offline AS DECIMAL(18, 6)) * 100 / installed AS DECIMAL(12, 6)) AS measured,
    $limit_pct AS limit_high,
    '%' AS unit,
    offline,
    installed
FROM (
    SELECT
        coalesce(area, 'unknown') AS area,
        window_start,
        window_end,
        count(*) FILTER (WHERE silence_s > $offline_s AND silence_s > 3 * step_s) AS offline,
        count(*) AS installed
    FROM dv_silence
    GROUP BY coalesce(area, 'unknown'), window_start, window_end
) a
