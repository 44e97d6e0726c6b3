-- Volume of readings: rows a day, in the mean of its seconds, and if the meters report one interval within five minutes or one.
SELECT
    n,
    meters * points_day AS rows_day,
    round(CAST(meters * points_day AS DOUBLE) / 86400, 6) AS avg_rows_s,
    round(CAST(meters AS DOUBLE) / 300, 6) AS burst_rows_s_if_5min,
    round(CAST(meters AS DOUBLE) / 60, 6) AS burst_rows_s_if_1min
FROM example
