-- GB/T 12325-2008, clause 4: three-phase supply of 20 kV and below, +-7 %; the primary voltage is the secondary times the PT ratio.
SELECT
    n,
    u AS u_primary_v,
    CAST((u - un) * 100 / un AS DECIMAL(12, 6)) AS dev_pct,
    (u - un) * 100 NOT BETWEEN lower_pct * un AND upper_pct * un AS violation
FROM (
    SELECT
        n,
        CAST(u_secondary_v AS DECIMAL(12, 6)) * CAST(pt_ratio AS DECIMAL(8, 2)) AS u,
        CAST(un_v AS DECIMAL(12, 6)) AS un,
        -7 AS lower_pct,
        7 AS upper_pct
    FROM example
) v
