-- GB/T 12325-2008, clause 4: +7 % exactly is inside. Floats say otherwise; decimals and tenths of a volt as integers do not.
SELECT
    n,
    (u - un) / un * 100 > limit_pct AS naive_float_gt_7,
    CAST((u - un) / un * 100 AS VARCHAR) AS value,
    CAST(u AS DECIMAL(12, 6)) * 100 > un * (100 + limit_pct) AS "u_gt_un*1.07",
    CAST(round(u * 10) AS BIGINT) * 100 > un * 10 * (100 + limit_pct) AS decivolt_int
FROM (SELECT *, 7 AS limit_pct FROM example) v
