-- EN 50160:2010, clause 4.2.2: 10-minute means of a week without the flagged ones; 95 % within +-10 % of nominal, all within +10 and -15 %.
WITH series AS (
    SELECT
        n,
        CAST(un AS DECIMAL(12, 6)) AS un,
        regexp_match(u_i, '^([0-9.]+)\+\(\(i%([0-9]+)\)-([0-9.]+)\)\*([0-9.]+), i=([0-9]+)\.\.([0-9]+)$') AS f,
        regexp_match(flagged, '^i=([0-9]+)\.\.([0-9]+)$') AS g
    FROM example
),
indices AS (SELECT n, un, f, g, unnest(generate_series(CAST(f[5] AS BIGINT), CAST(f[6] AS BIGINT))) AS i FROM series),
samples AS (
    SELECT
        n,
        un,
        CAST(f[1] AS DECIMAL(12, 6)) + (i % CAST(f[2] AS BIGINT) - CAST(f[3] AS BIGINT)) * CAST(f[4] AS DECIMAL(12, 6)) AS u,
        i BETWEEN CAST(g[1] AS BIGINT) AND CAST(g[2] AS BIGINT) AS is_flagged
    FROM indices
),
counts AS (
    SELECT
        n,
        count(*) FILTER (WHERE NOT is_flagged) AS n_valid,
        count(*) FILTER (WHERE is_flagged) AS n_flagged,
        count(*) FILTER (WHERE NOT is_flagged AND u BETWEEN 0.90 * un AND 1.10 * un) AS within_10,
        count(*) FILTER (WHERE NOT is_flagged AND u BETWEEN 0.85 * un AND 1.10 * un) AS within_15
    FROM samples
    GROUP BY n
)
SELECT
    n,
    n_valid,
    n_flagged,
    within_10 AS within_10pct,
    round(100 * CAST(within_10 AS DOUBLE) / nullif(n_valid, 0), 6) AS within_pct,
    within_10 * 100 >= 95 * n_valid AS pass_95,
    round(100 * CAST(within_15 AS DOUBLE) / nullif(n_valid, 0), 6) AS "within_+10_-15_pct",
    within_15 = n_valid AS pass_100
FROM counts
