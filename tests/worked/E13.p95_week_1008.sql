-- GB/T 14549-1993, GB/T 15543-2008 and EN 50160: the 95 % value of a week of 10-minute values, without its largest 5 %, and by nearest rank.
WITH series AS (
    SELECT n, regexp_match(x_i, '^([0-9.]+)\+\(i%([0-9]+)\)\*([0-9.]+), i=([0-9]+)\.\.([0-9]+)$') AS f
    FROM example
),
indices AS (SELECT n, f, unnest(generate_series(CAST(f[4] AS BIGINT), CAST(f[5] AS BIGINT))) AS i FROM series),
samples AS (
    SELECT n, CAST(f[1] AS DECIMAL(12, 6)) + (i % CAST(f[2] AS BIGINT)) * CAST(f[3] AS DECIMAL(12, 6)) AS x
    FROM indices
)
SELECT
    n,
    gb_percentile_95(x) AS p95_gb_drop_floor5pct,
    nearest_rank_percentile(x, 0.95) AS p95_nearest_rank,
    nearest_rank_percentile(x, 0.99) AS p99_nearest_rank,
    max(x) AS max
FROM samples
GROUP BY n
