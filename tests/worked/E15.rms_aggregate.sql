-- IEC 61000-4-30, GB/T 17626.30: values are aggregated as the root of the mean of their squares, not as their mean.
SELECT
    n,
    round(rms_mean(u), 6) AS rms,
    round(avg(u), 6) AS "arith_mean(NOT the standard)"
FROM (SELECT n, unnest(u) AS u FROM example) v
GROUP BY n
