/*---
id          = "op_app_silent"
kind        = "alert"
title       = "Application instance sends no good heartbeat"
title_zh    = "应用实例心跳丢失"
severity    = "warning"
entity      = "app_id"
category    = "operations"
unit        = "heartbeats"
standard    = "internal"
owner       = "operations"
description = """
Fires when an instance of `applications` sent no good heartbeat in 5 minutes: none at all, or only such that say the
process is missing (`verdict` is `silent` or `process_missing`). Critical if the register says so. A window ends every
minute, so silence is told 5 to 6 minutes after the last heartbeat, plus the delay of the stream. Resolves with the first
window that holds a good one. Restarts of an instance are counted by the rules of devices, as its samples are samples of
a device. Not seen: that the whole stream is silent, an application that beats and does nothing, and an alert of an
instance that is taken out of the register stays open.
"""
---*/
SELECT
    app_id,
    window_start,
    window_end,
    good_beats = 0 AS firing,
    CASE WHEN is_critical THEN 'critical' ELSE 'warning' END AS severity,
    good_beats AS measured,
    1 AS limit_low,
    'heartbeats' AS unit,
    CASE WHEN good_beats > 0 THEN 'alive' WHEN beats > 0 THEN 'process_missing' ELSE 'silent' END AS verdict,
    service,
    beats,
    step_s,
    last_beat_ts
FROM op_heartbeat_windows
