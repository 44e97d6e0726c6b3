-- GB/T 12326-2008, table 1: voltage change up to 35 kV, limit by the number of changes an hour.
WITH limits (r_above, r_up_to, limit_pct) AS (VALUES (0, 1, 4.00), (1, 10, 3.00), (10, 100, 2.00), (100, 1000, 1.25))
SELECT
    e.n,
    round(CAST((e.umax - e.umin) * 100 AS DOUBLE) / e.un, 6) AS d_pct,
    l.limit_pct AS "limit_lv_mv_1<r<=10",
    (e.umax - e.umin) * 100 > l.limit_pct * e.un AS violation
FROM example e
LEFT JOIN limits l ON e.r_per_h > l.r_above AND e.r_per_h <= l.r_up_to
