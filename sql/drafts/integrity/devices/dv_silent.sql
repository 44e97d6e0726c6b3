/*---
id          = "dv_silent"
kind        = "alert"
title       = "Registered device gave no answer for 15 minutes"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "samples"
standard    = "internal"
owner       = "operations"
description = """
Fires when a device of the reference table `devices` sent nothing in a window of 15 minutes, or only samples that say
`online = false`; resolves with the first window that holds an answer. A window ends every 5 minutes, so silence is told
15 to 20 minutes after the last answer, plus the delay of the stream. Judged are devices with a period of 5 minutes or
less that are registered throughout the window (see dv_answer_windows). Critical for servers, switches, routers and
concentrators, as others are reached through them. It cannot see that the whole stream stands still,
nor whether the device or the device before it on the line failed; an alert of a device that is taken out of the registry
stays open.
"""
---*/
SELECT
    device_id,
    window_start,
    window_end,
    answers = 0 AS firing,
    CASE
        WHEN device_type IN ('server', 'switch', 'router', 'concentrator') THEN 'critical' ELSE 'warning'
    END AS severity,
    answers AS measured,
    1 AS limit_low,
    'samples' AS unit,
    offline_samples,
    device_type,
    step_s
FROM dv_answer_windows
