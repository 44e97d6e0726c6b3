-- GB/T 15945-2008: share of the seconds whose frequency is inside the limit.
SELECT
    n,
    round(100 * (1 - CAST(out_of_limit AS DOUBLE) / nullif(samples_1s, 0)), 6) AS qual_rate_pct
FROM example
