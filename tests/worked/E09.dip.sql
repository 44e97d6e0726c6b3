-- IEC 61000-4-30, clause 5.4, GB/T 30137-2013: a dip lasts from any phase below the threshold until all are above it by the hysteresis; it is an
-- interruption if all phases were below a tenth of nominal at once.
WITH samples AS (
    SELECT
        n, un, thr, hysteresis, 0.1 AS intr_thr,
        unnest(t_ms) AS t_ms, unnest(ua) AS ua, unnest(ub) AS ub, unnest(uc) AS uc
    FROM example
),
phases AS (
    SELECT
        n,
        un,
        t_ms,
        CAST(least(ua, ub, uc) AS DECIMAL(12, 6)) AS lowest_v,
        CAST(greatest(ua, ub, uc) AS DECIMAL(12, 6)) AS highest_v,
        CAST(thr AS DECIMAL(6, 4)) * un AS starts_below_v,
        CAST(thr + hysteresis AS DECIMAL(6, 4)) * un AS ends_from_v,
        intr_thr * un AS interrupted_below_v
    FROM samples
),
states AS (
    SELECT
        *,
        max(t_ms) FILTER (WHERE lowest_v < starts_below_v) OVER w AS fell_ms,
        max(t_ms) FILTER (WHERE lowest_v >= ends_from_v) OVER w AS rose_ms,
        lead(t_ms) OVER w AS next_ms
    FROM phases
    WINDOW w AS (PARTITION BY n ORDER BY t_ms)
),
dips AS (
    SELECT
        n,
        min(t_ms) AS start_ms,
        last_value(next_ms ORDER BY t_ms) AS end_ms,
        CAST(min(lowest_v) * 100 / min(un) AS DECIMAL(12, 6)) AS residual_pct,
        CASE WHEN bool_or(highest_v < interrupted_below_v) THEN 'interruption' ELSE 'dip' END AS kind
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
        'depth_pct', 100 - d.residual_pct,
        'kind', d.kind
    ) ORDER BY d.start_ms) FILTER (WHERE d.n IS NOT NULL), []) AS events
FROM example e
LEFT JOIN dips d ON d.n = e.n
GROUP BY e.n
