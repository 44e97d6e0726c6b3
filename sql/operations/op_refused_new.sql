/*---
id          = "op_refused_new"
kind        = "alert"
title       = "Records are refused for a reason that is new on this topic"
title_zh    = "主题上首次出现的拒收原因"
severity    = "info"
entity      = ["stream", "record_topic", "reason"]
category    = "operations"
standard    = "internal"
owner       = "operations"
description = """
One occurrence for the first record of a topic that is refused for a reason for which none was within `within` before: a
sender was changed, or a new one joined. Comes with the first record, where op_refused_records waits for a hundred; look
at `detail` and `raw` in `dead_letters`. Refusals of one instant (one tick) for the same reason are told together by the
first of them. Goes by the time of the refusal. Not seen: a reason that comes back within that time.
"""
params      = { within = "7 days" }
---*/
SELECT stream, record_topic, reason, refused_at, detail, record_partition, record_offset, $within AS within
FROM (
    SELECT
        stream,
        record_topic,
        reason,
        refused_at,
        detail,
        record_partition,
        record_offset,
        count(*) OVER (
            PARTITION BY stream, record_topic, reason ORDER BY refused_at
            RANGE BETWEEN INTERVAL $within PRECEDING AND INTERVAL '1 microsecond' PRECEDING
        ) AS before,
        row_number() OVER (PARTITION BY stream, record_topic, reason ORDER BY refused_at)
            - rank() OVER (PARTITION BY stream, record_topic, reason ORDER BY refused_at) AS place
    FROM dead_letters
) d
WHERE before = 0 AND place = 0
