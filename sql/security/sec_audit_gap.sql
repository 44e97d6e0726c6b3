/*---
id          = "sec_audit_gap"
kind        = "alert"
title       = "Numbers are missing in an audit trail"
title_zh    = "审计记录序号缺失"
severity    = "critical"
entity      = "source"
category    = "security"
standard    = "GB/T 22239-2019"
clause      = "8.1.4.3"
owner       = "security"
description = """
One occurrence for each access event whose `seq_no` is not one above that of the event before it, while the number before
it did not come within `within` of it, before or after: records were deleted, or lost on the way. The last of the missing
ones is `missing_seq_no`. The standard asks that audit records are protected from deletion. Numbers may come in any order
within that time, and twice; a silence is no gap. A source that begins anew at a number above its smallest fires once.
Not judged: the first numbers of a source, negative ones and those of 10^18 and above, and sources without numbers.
Not seen: missing numbers at the end until a further one comes, and events that came beyond the delay.
"""
params      = { within = "10 minutes" }
---*/
WITH numbered AS (
    SELECT
        source,
        seq_no,
        ts,
        min(seq_no) OVER (PARTITION BY source ORDER BY ts) AS smallest_seq_no,
        lag(seq_no) OVER (PARTITION BY source ORDER BY ts) AS previous_seq_no,
        actor_id,
        action
    FROM sec_actions
    WHERE source IS NOT NULL AND seq_no >= 0 AND seq_no < 1000000000000000000
)
SELECT n.source, n.ts, n.seq_no, n.seq_no - 1 AS missing_seq_no, n.previous_seq_no, n.actor_id, n.action
FROM numbered n
WHERE n.seq_no > n.smallest_seq_no AND n.seq_no - n.previous_seq_no NOT BETWEEN 0 AND 1
    AND NOT EXISTS (
        SELECT 1
        FROM sec_actions p
        WHERE p.source = n.source AND p.seq_no = n.seq_no - 1
            AND p.ts BETWEEN n.ts - INTERVAL $within AND n.ts + INTERVAL $within
    )
