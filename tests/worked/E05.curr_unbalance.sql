-- Q/GDW 1519, DL/T 1102: current unbalance of a Yyn0 transformer, spread over the largest phase <= 15 %; beside it the deviation from the mean.
SELECT
    n,
    CAST((highest - lowest) * 100 / nullif(highest, 0) AS DECIMAL(12, 6)) AS max_min_over_max_pct,
    CAST(greatest(highest - mean, mean - lowest) * 100 / nullif(mean, 0) AS DECIMAL(12, 6)) AS max_dev_over_avg_pct,
    (highest - lowest) * 100 > limit_pct * highest AS viol_15pct
FROM (
    SELECT n, greatest(ia, ib, ic) AS highest, least(ia, ib, ic) AS lowest, (ia + ib + ic) / 3 AS mean, 15 AS limit_pct
    FROM (
        SELECT
            n,
            CAST(ia_ib_ic[1] AS DECIMAL(12, 6)) AS ia,
            CAST(ia_ib_ic[2] AS DECIMAL(12, 6)) AS ib,
            CAST(ia_ib_ic[3] AS DECIMAL(12, 6)) AS ic
        FROM example
    ) i
    WHERE ia IS NOT NULL AND ib IS NOT NULL AND ic IS NOT NULL
) e
