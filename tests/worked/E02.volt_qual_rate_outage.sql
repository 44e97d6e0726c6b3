-- GB/T 12325-2008, clause 5 and annex A: minutes without supply are not minutes monitored.
SELECT
    n,
    round(100 * (1 - CAST("over" + under AS DOUBLE) / nullif(total_min - outage_min, 0)), 6) AS qual_rate_pct
FROM example
