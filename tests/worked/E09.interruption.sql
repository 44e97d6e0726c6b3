-- IEC 61000-4-30, clauses 5.4 and 5.5, GB/T 30137-2013: a dip of all phases, below 90 % and back at 92 %, that falls below the interruption
-- threshold (10 % here, 5 % in IEC and EN) is an interruption.
WITH samples AS (
    SELECT
        n,
        un,
        unnest(t_ms) AS t_ms,
        CAST(unnest(u_all_phases) AS DECIMAL(12, 6)) AS u,
        0.90 * un AS starts_below_v,
        0.92 * un AS ends_from_v,
        CAST(intr_thr AS DECIMAL(6, 4)) * un AS interrupted_below_v
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
dips AS (
    SELECT
        n,
        min(t_ms) AS start_ms,
        last_value(next_ms ORDER BY t_ms) AS end_ms,
        CAST(min(u) * 100 / min(un) AS DECIMAL(12, 6)) AS residual_pct,
        CASE WHEN bool_or(u < interrupted_below_v) THEN 'interruption' ELSE 'dip' END AS kind
    FROM states
    WHERE fell_ms IS NOT NULL AND (rose_ms IS NULL OR fell_ms > rose_ms)
    GROUP BY n, rose_ms
)
SELECT
    e.n,
    coalesce(array_agg(named_struct(
        'start_ms', d.start_ms,
        'end_ms', d.end_ms,
        'duration_ms', d.end_ms - d.start_ms,
        'residual_pct', d.residual_pct,
        'kind', d.kind
    ) ORDER BY d.start_ms) FILTER (WHERE d.n IS NOT NULL), []) AS events
FROM example e
LEFT JOIN dips d ON d.n = e.n
GROUP BY e.n
