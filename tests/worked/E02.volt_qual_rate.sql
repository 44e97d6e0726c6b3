-- GB/T 12325-2008, clause 5 and annex A: share of the monitored minutes with the voltage inside its limits.
SELECT
    n,
    round(100 - over_rate_pct - under_rate_pct, 6) AS qual_rate_pct,
    round(over_rate_pct, 6) AS over_rate_pct,
    round(under_rate_pct, 6) AS under_rate_pct
FROM (
    SELECT
        n,
        100 * CAST(over_upper_min AS DOUBLE) / nullif(total_min, 0) AS over_rate_pct,
        100 * CAST(under_lower_min AS DOUBLE) / nullif(total_min, 0) AS under_rate_pct
    FROM example
) r
