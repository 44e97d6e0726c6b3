-- IEC 61000-4-30, clause 5.5, GB/T 30137-2013: an interruption lasts from all phases below its threshold until one is above it by 2 % of
-- nominal.
WITH samples AS (
    SELECT
        n,
        unnest(t_ms) AS t_ms,
        CAST(unnest(u_all_phases) AS DECIMAL(12, 6)) AS u,
        CAST(intr_thr AS DECIMAL(6, 4)) * un AS starts_below_v,
        (CAST(intr_thr AS DECIMAL(6, 4)) + 0.02) * un AS ends_from_v
    FROM example
),
states AS (
    SELECT
        *,
        max(t_ms) FILTER (WHERE u < starts_below_v) OVER w AS fell_ms,
        max(t_ms) FILTER (WHERE u >= ends_from_v) OVER w AS rose_ms,
        lead(t_ms) OVER w AS next_ms
    FROM samples
    WINDOW w AS (PARTITION BY n ORDER BY t_ms)
),
interruptions AS (
    SELECT n, min(t_ms) AS start_ms, last_value(next_ms ORDER BY t_ms) AS end_ms
    FROM states
    WHERE fell_ms IS NOT NULL AND (rose_ms IS NULL OR fell_ms > rose_ms)
    GROUP BY n, rose_ms
)
SELECT
    e.n,
    coalesce(array_agg([i.start_ms, i.end_ms] ORDER BY i.start_ms) FILTER (WHERE i.n IS NOT NULL), []) AS spans_ms,
    coalesce(array_agg(i.end_ms - i.start_ms ORDER BY i.start_ms) FILTER (WHERE i.n IS NOT NULL), []) AS duration_ms
FROM example e
LEFT JOIN interruptions i ON i.n = e.n
GROUP BY e.n
