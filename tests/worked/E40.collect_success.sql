-- Data collection: readings that came by the deadline over those expected, at least 99.5 % a day.
SELECT
    n,
    round(100 * CAST(received_by_deadline AS DOUBLE) / nullif(expected, 0), 6) AS rate_pct,
    received_by_deadline * 100 < limit_pct * expected AS "alert_lt_99.5"
FROM (SELECT *, 99.5 AS limit_pct FROM example) c
