/*---
id          = "an_txn_new_kind"
kind        = "alert"
title       = "Kind of transaction that was not seen before"
title_zh    = "首次出现的业务类型"
severity    = "info"
entity      = ["process_type", "step", "channel"]
category    = "anomaly"
standard    = "internal"
owner       = "analytics"
description = """
One occurrence for the first step of a process, step name and channel that did not come within `within` before, if
transactions have come for at least `known_for`, so that a new installation says nothing: a new release, a spelling mistake
of an interface, or somebody who found a way in. Steps without a channel are taken together as `none`. Kept are the times
of the steps within that time, for each kind. Not seen: a new kind that comes with a known name.
"""
[params]
within    = "30 days"
known_for = "14 days"
---*/
SELECT process_type, step, channel, event_ts, case_id, source_system, operator_id, $within AS within
FROM (
    SELECT
        *,
        count(*) OVER (
            PARTITION BY process_type, step, channel ORDER BY event_ts
            RANGE BETWEEN INTERVAL $within PRECEDING AND INTERVAL '1 microsecond' PRECEDING
        ) AS before,
        first_value(event_ts) OVER (ORDER BY event_ts) AS first_ts,
        row_number() OVER (PARTITION BY process_type, step, channel ORDER BY event_ts)
            - rank() OVER (PARTITION BY process_type, step, channel ORDER BY event_ts) AS place
    FROM (
        SELECT
            lower(trim(process_type)) AS process_type,
            lower(trim(step)) AS step,
            coalesce(lower(nullif(trim(channel), '')), 'none') AS channel,
            event_ts,
            case_id,
            source_system,
            operator_id
        FROM business_transactions
    ) k
) b
WHERE before = 0 AND place = 0 AND event_ts - first_ts >= INTERVAL $known_for
