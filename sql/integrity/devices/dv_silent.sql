/*---
id          = "dv_silent"
kind        = "alert"
title       = "Registered device gives no answer for three of its periods"
title_zh    = "在册设备三个周期无应答"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "s"
standard    = "internal"
owner       = "operations"
description = """
Fires when a device of the reference table `devices` has not answered for more than `periods` times its period (`step_s`),
and more than a minute: 60 s for a server sampled every 20 s, 15 minutes for a terminal sampled every 5 minutes. Samples
that say `online = false` are no answers. It needs no event of the device: any other device that is heard moves time on
(see dv_silence). Resolves with the first minute after which the silence is shorter.
A device whose `upstream_id` (router, concentrator, ...) has been silent as long as itself may be says nothing (`firing`
NULL), and so on down the tree: one alert about the cause, none about those behind it. `suppressed_by` names the cause.
An alert that was open before stays so.
The severity is that of the row `silence_s` for its type in `device_type_limits`, else `warning`. To silence the alert
of a device, end its row in `devices`; one that is open then stays open.
Not seen: that the whole stream stands still, and whether the line or the device failed where `upstream_id` is empty.
"""
params      = { periods = 3 }
---*/
SELECT
    s.device_id,
    s.window_start,
    s.window_end,
    CASE WHEN NOT s.silent THEN false WHEN NOT s.upstream_silent THEN true END AS firing,
    coalesce(l.severity, 'warning') AS severity,
    s.silence_s AS measured,
    s.limit_high,
    's' AS unit,
    CASE WHEN s.silent AND s.upstream_silent THEN s.upstream_id END AS suppressed_by,
    s.last_answer_at,
    s.offline_samples,
    s.device_type,
    s.area,
    s.step_s
FROM (
    SELECT
        *,
        greatest(step_s * $periods, 60) AS limit_high,
        silence_s > greatest(step_s * $periods, 60) AS silent,
        coalesce(upstream_silence_s > greatest(least(step_s, upstream_step_s) * $periods, 60), false) AS upstream_silent
    FROM (
        -- Each device once under its own name and once under that of its upstream, where the two meet.
        SELECT
            *,
            max(CASE WHEN role = 'itself' THEN silence_s END) OVER (PARTITION BY window_start, place) AS upstream_silence_s,
            max(CASE WHEN role = 'itself' THEN step_s END) OVER (PARTITION BY window_start, place) AS upstream_step_s
        FROM (
            SELECT *, CASE role WHEN 'itself' THEN device_id ELSE coalesce(upstream_id, '') END AS place
            FROM (SELECT *, unnest(['itself', 'behind']) AS role FROM dv_silence) r
        ) p
    ) m
    WHERE role = 'behind'
) s
LEFT JOIN device_type_limits l ON l.device_type = s.device_type AND l.metric = 'silence_s'
