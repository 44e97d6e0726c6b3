/*---
id          = "op_collection_rate"
kind        = "alert"
title       = "Readings of a feeder are incomplete or late"
title_zh    = "馈线采集完整率或及时率不足"
severity    = "warning"
entity      = "feeder"
category    = "operations"
unit        = "%"
standard    = "internal"
owner       = "operations"
description = """
Judges the rows of op_collection_days: fires when fewer than `complete_pct` of the slots of a feeder came, or fewer than
`in_time_pct` of its readings were collected in time; `verdict` says which, and `measured` is that share. Resolves with a
day on which both are reached. Readings without `collected_ts` are not judged for time. Line loss, demand and suspects of
theft of such a feeder cannot be trusted on that day. Single meters are the matter of the rules of readings.
"""
[params]
complete_pct = 95.0
in_time_pct  = 98.0
---*/
SELECT
    feeder,
    window_start,
    window_end,
    verdict <> 'good' AS firing,
    verdict,
    CASE verdict WHEN 'late' THEN in_time_pct ELSE complete_pct END AS measured,
    CASE verdict WHEN 'late' THEN $in_time_pct ELSE $complete_pct END AS limit_low,
    '%' AS unit,
    local_date,
    complete_pct,
    in_time_pct,
    heard_pct,
    meters,
    meters_heard
FROM (
    SELECT
        *,
        CASE
            WHEN slots * 100 < slots_expected * $complete_pct THEN 'incomplete'
            WHEN in_time * 100 < with_time * $in_time_pct THEN 'late'
            ELSE 'good'
        END AS verdict
    FROM op_collection_days
) d
