-- IEEE 519-2022, clause 5.1: the 99 % value of a day's 3-second distortions <= 1.5 times the limit.
WITH runs AS (SELECT n, lim_lv_thd, trim(unnest(string_to_array(thd_3s, ','))) AS run FROM example),
samples AS (
    SELECT
        n,
        lim_lv_thd,
        unnest(array_repeat(CAST(split_part(run, 'x', 2) AS DECIMAL(12, 6)), CAST(split_part(run, 'x', 1) AS BIGINT))) AS thd_pct
    FROM runs
)
SELECT
    n,
    p99 AS p99_nearest_rank,
    limit_pct AS "limit_1.5x",
    p99 > limit_pct AS violation
FROM (
    SELECT n, nearest_rank_percentile(thd_pct, 0.99) AS p99, 1.5 * CAST(min(lim_lv_thd) AS DECIMAL(6, 2)) AS limit_pct
    FROM samples
    GROUP BY n
) d
