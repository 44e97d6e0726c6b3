-- IEC 61000-4-30, clauses 5.4 and 5.5: the loss of one phase is a dip, as an interruption takes all phases. A value each half cycle of 10 ms.
WITH samples AS (
    SELECT
        n,
        10 * unnest(range(0, array_length(ua))) AS t_ms,
        CAST(unnest(ua) AS DECIMAL(12, 6)) AS a,
        CAST(ub_uc AS DECIMAL(12, 6)) AS bc,
        220 AS un
    FROM example
),
judged AS (
    SELECT n, t_ms, un, 'dip' AS kind, least(a, bc) AS lowest_v, least(a, bc) AS u, 0.90 AS starts_below_pu, 0.92 AS ends_from_pu
    FROM samples
    UNION ALL
    SELECT n, t_ms, un, 'interruption', least(a, bc), greatest(a, bc), 0.10, 0.12
    FROM samples
),
states AS (
    SELECT
        *,
        max(t_ms) FILTER (WHERE u < starts_below_pu * un) OVER w AS fell_ms,
        max(t_ms) FILTER (WHERE u >= ends_from_pu * un) OVER w AS rose_ms,
        lead(t_ms) OVER w AS next_ms
    FROM judged
    WINDOW w AS (PARTITION BY n, kind ORDER BY t_ms)
),
events AS (
    SELECT
        n,
        kind,
        min(t_ms) AS start_ms,
        [min(t_ms), last_value(next_ms ORDER BY t_ms), CAST(min(lowest_v) * 100 / min(un) AS DECIMAL(12, 6))] AS event
    FROM states
    WHERE fell_ms IS NOT NULL AND (rose_ms IS NULL OR fell_ms > rose_ms)
    GROUP BY n, kind, rose_ms
)
SELECT
    e.n,
    coalesce(array_agg(v.event ORDER BY v.start_ms) FILTER (WHERE v.kind = 'interruption'), []) AS interruptions,
    coalesce(array_agg(v.event ORDER BY v.start_ms) FILTER (WHERE v.kind = 'dip'), []) AS dips
FROM example e
LEFT JOIN events v ON v.n = e.n
GROUP BY e.n
