-- Longest run of minutes of UCI-1 above 220 V +7 %.
SELECT coalesce(max(minutes), 0) AS minutes, last_value(first_ts ORDER BY minutes) AS first_ts
FROM overvoltage_runs
WHERE meter_id = 'UCI-1' AND phase = 'a'
