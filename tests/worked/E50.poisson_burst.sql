-- Burst of counted events: z = (observed - expected) / sqrt(expected), alarm above 5.
SELECT
    n,
    round(z, 6) AS z_sqrt,
    CAST(z AS DECIMAL(12, 6)) > limit_z AS alert_z_gt_5
FROM (SELECT n, (observed - expected) / sqrt(nullif(expected, 0)) AS z, 5 AS limit_z FROM example) b
