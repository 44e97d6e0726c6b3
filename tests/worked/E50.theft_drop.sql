-- Theft: the consumption of the last two weeks against the mean of the weeks before, alarm above a drop of 50 %.
SELECT
    n,
    round(ratio, 6) AS ratio,
    CAST(100 * (1 - ratio) AS DECIMAL(9, 6)) AS drop_pct,
    CAST(100 * (1 - ratio) AS DECIMAL(9, 6)) > drop_pct_thr AS alert
FROM (
    SELECT
        n,
        drop_pct_thr,
        array_avg(array_slice(weekly_kwh, -recent_weeks, -1)) / nullif(array_avg(array_slice(weekly_kwh, 1, -recent_weeks - 1)), 0) AS ratio
    FROM (SELECT *, 2 AS recent_weeks FROM example) w
) r
