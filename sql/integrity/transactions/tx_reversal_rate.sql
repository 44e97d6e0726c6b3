/*---
id          = "tx_reversal_rate"
kind        = "alert"
title       = "Operator reverses far more than the others"
title_zh    = "操作员冲正比例异常"
severity    = "critical"
entity      = "operator_id"
category    = "security"
unit        = "z"
standard    = "internal"
owner       = "audit"
description = """
Counts the reversals (steps that match `reversal_steps`) among the money steps (`money_steps`) of each operator and local
day, and says how many standard deviations they are above what the share of all other operators on that day makes one
expect: p = (their reversals + 1) / (their steps + 2), z = (reversals - n p) / sqrt(n p (1 - p)). Fires above `z_max` from
`min_reversals` on. Resolves on the next day on which the operator works and stays within. Verdict `insufficient_data`
(says nothing) if the others have fewer than `min_others` steps. Machines, whose names match `machines`, are neither
judged nor counted. A step that is delivered twice counts twice. Days are those of UTC+8. Not seen: a small office in
which everybody does it, and an operator whose task it is to reverse, who belongs into `machines`.
"""
[params]
reversal_steps = "_(reversed|refunded|cancelled)$"
money_steps    = "^(bill|payment|refund)_"
machines       = "(?i)^(system|batch|robot|billing-run)$"
z_max          = 4.0
min_reversals  = 5
min_others     = 30
---*/
WITH days AS (
    SELECT
        operator_id,
        window_start,
        window_end,
        count(*) AS steps,
        count(*) FILTER (WHERE regexp_like(step, $reversal_steps)) AS reversals,
        sum(abs(amount)) FILTER (WHERE regexp_like(step, $reversal_steps)) AS reversed_yuan
    FROM TUMBLE(business_transactions, event_ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    WHERE regexp_like(step, $money_steps) AND NOT regexp_like(operator_id, $machines)
    GROUP BY operator_id, window_start, window_end
),
others AS (
    SELECT
        *,
        sum(steps) OVER w - steps AS other_steps,
        sum(reversals) OVER w - reversals AS other_reversals
    FROM days
    WINDOW w AS (PARTITION BY window_start)
),
expected AS (
    SELECT
        *,
        CAST(reversals AS DOUBLE) AS x,
        CAST(steps AS DOUBLE) AS n,
        (CAST(other_reversals AS DOUBLE) + 1) / (CAST(other_steps AS DOUBLE) + 2) AS p
    FROM others
),
scored AS (
    SELECT *, CASE WHEN other_steps >= $min_others THEN round((x - n * p) / sqrt(n * p * (1 - p)), 6) END AS z
    FROM expected
)
SELECT
    operator_id,
    window_start,
    window_end,
    CASE WHEN z IS NOT NULL THEN z > $z_max AND reversals >= $min_reversals END AS firing,
    CASE
        WHEN z IS NULL THEN 'insufficient_data'
        WHEN z > $z_max AND reversals >= $min_reversals THEN 'above'
        ELSE 'within'
    END AS verdict,
    z AS measured,
    $z_max AS limit_high,
    'z' AS unit,
    reversals,
    steps,
    other_reversals,
    other_steps,
    reversed_yuan
FROM scored
