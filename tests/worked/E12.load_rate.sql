-- Q/GDW 1519: load of a distribution transformer; above 80 % of the rating it is heavy, above 100 % an overload.
SELECT
    n,
    round(s_kva, 6) AS s_kva,
    beta_pct,
    round(abs(p_kw) / nullif(s_kva, 0), 6) AS pf,
    CASE
        WHEN beta_pct > overload_above_pct THEN 'overload'
        WHEN beta_pct > heavy_above_pct THEN 'heavy'
        WHEN beta_pct <= heavy_above_pct THEN 'normal'
    END AS state
FROM (
    SELECT
        n,
        p_kw,
        sqrt(p_kw * p_kw + q_kvar * q_kvar) AS s_kva,
        CAST(100 * sqrt(p_kw * p_kw + q_kvar * q_kvar) / sn_kva AS DECIMAL(12, 6)) AS beta_pct,
        80 AS heavy_above_pct,
        100 AS overload_above_pct
    FROM example
) l
