-- GB/T 12326-2008, table 2, IEC 61000-4-15: long-term flicker of two hours, <= 1.0 up to 110 kV; fewer than twelve Pst give none.
SELECT
    n,
    round(plt, 6) AS plt,
    CAST(plt AS DECIMAL(12, 6)) > limit_plt AS "violation_gt_1.0"
FROM (
    SELECT n, plt(pst) AS plt, 1.0 AS limit_plt
    FROM (SELECT n, unnest(pst12) AS pst FROM example) p
    GROUP BY n
) f
