/*---
id          = "op_pipeline_days"
kind        = "table"
title       = "Refused records and rule errors of each local day"
title_zh    = "每日拒收记录与规则错误统计"
category    = "operations"
standard    = "internal"
owner       = "operations"
key         = ["what", "name", "reason"]
description = """
One row per local day (UTC+8), stream and reason of refusal (`what` is `refused`), and per rule that failed (`what` is
`rule_error`, `reason` its first message). A day without any has no row. The share of the accepted records is found in
the archive, by the count of the raw table.
"""
---*/
SELECT
    what,
    name,
    reason,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_date,
    count(*) AS events,
    count(DISTINCT record_topic) AS topics,
    min(at) AS first_at,
    max(at) AS last_at
FROM TUMBLE((
    SELECT 'refused' AS what, stream AS name, reason, refused_at AS at, record_topic FROM dead_letters
    UNION ALL
    SELECT 'rule_error', rule_id, message, failed_at, record_topic FROM rule_errors
), at, INTERVAL '1 day', 'Asia/Shanghai')
GROUP BY what, name, reason, window_start, window_end
