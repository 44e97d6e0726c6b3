-- GB/T 12325-2008, clause 4: deviation of the supply voltage from nominal; a value on a limit is inside, which floats get wrong.
SELECT
    n,
    CAST((u - un) * 100 / un AS DECIMAL(12, 6)) AS dev_pct,
    (u - un) * 100 NOT BETWEEN lower_pct * un AND upper_pct * un AS violation
FROM (
    SELECT
        n,
        CAST(u_v AS DECIMAL(12, 6)) AS u,
        CAST(un_v AS DECIMAL(12, 6)) AS un,
        CAST(lim[1] AS DECIMAL(6, 2)) AS lower_pct,
        CAST(lim[2] AS DECIMAL(6, 2)) AS upper_pct
    FROM example
) v
