/*---
id          = "tx_sequence_gap"
kind        = "alert"
title       = "Transaction numbers of a source are missing"
title_zh    = "业务流水号缺失"
severity    = "warning"
entity      = "source_system"
category    = "business"
standard    = "internal"
owner       = "integration"
description = """
Fires for a transaction if the number before its `seq_no` is neither that of the transaction before it nor came with an
event time within `within` of it, before or after, both included, while the source has given smaller numbers already:
records were lost between the source and here. One alert for each run of missing numbers, at the first number behind it;
the last of the missing ones is `missing_seq_no`. Numbers may come in any order within that time, and twice; a silence
of any length is no gap. A source that begins anew at a number above its smallest fires once. Not judged: the first
numbers of a source, negative ones, and those of 10^18 and above. Not seen: missing numbers at the end, until a further
one comes, and numbers that stand in the raw table but came beyond the delay.
"""
params      = { within = "10 minutes" }
---*/
WITH numbered AS (
    SELECT
        source_system,
        seq_no,
        event_ts,
        min(seq_no) OVER (PARTITION BY source_system ORDER BY event_ts) AS smallest_seq_no,
        lag(seq_no) OVER (PARTITION BY source_system ORDER BY event_ts) AS previous_seq_no,
        txn_id,
        case_id,
        process_type
    FROM business_transactions
    WHERE source_system IS NOT NULL AND seq_no >= 0 AND seq_no < 1000000000000000000
)
SELECT
    n.source_system,
    n.event_ts,
    n.seq_no,
    n.seq_no - 1 AS missing_seq_no,
    n.previous_seq_no,
    n.txn_id,
    n.case_id,
    n.process_type
FROM numbered n
WHERE n.seq_no > n.smallest_seq_no AND n.seq_no - n.previous_seq_no NOT BETWEEN 0 AND 1
    AND NOT EXISTS (
        SELECT 1
        FROM business_transactions p
        WHERE p.source_system = n.source_system AND p.seq_no = n.seq_no - 1
            AND p.event_ts BETWEEN n.event_ts - INTERVAL $within AND n.event_ts + INTERVAL $within
    )
