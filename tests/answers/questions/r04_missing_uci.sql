-- Minutes of UCI-1 without a voltage, and the first and last of each run of them.
WITH runs AS (
    SELECT
        run,
        count(*) AS minutes,
        make_array(first_value(local_ts ORDER BY ts), last_value(local_ts ORDER BY ts)) AS ends
    FROM missing_voltages
    WHERE meter_id = 'UCI-1'
    GROUP BY run
)
SELECT coalesce(sum(minutes), 0) AS null_minutes, coalesce(array_agg(ends ORDER BY run), make_array()) AS runs
FROM runs
