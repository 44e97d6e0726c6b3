-- Q/GDW 1519: a transformer is heavily loaded if the longest run of quarters of an hour at or above the threshold lasts for two hours.
WITH points AS (
    SELECT n, thr, need_points, unnest(range(0, array_length(beta_pct_15min))) AS i, unnest(beta_pct_15min) AS beta_pct
    FROM example
),
runs AS (
    SELECT n, i - row_number() OVER (PARTITION BY n ORDER BY i) AS run
    FROM points
    WHERE beta_pct >= thr
),
lengths AS (SELECT n, run, count(*) AS points FROM runs GROUP BY n, run)
SELECT
    e.n,
    coalesce(max(l.points), 0) AS longest_run_points,
    coalesce(max(l.points), 0) * 15 AS longest_run_min,
    coalesce(max(l.points), 0) >= min(e.need_points) AS alert
FROM example e
LEFT JOIN lengths l ON l.n = e.n
GROUP BY e.n
