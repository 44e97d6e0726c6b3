-- Longest run of readings with the same power of each meter.
SELECT meter_id AS key, max(minutes) AS minutes, last_value(first_ts ORDER BY minutes) AS first_ts
FROM flat_runs
GROUP BY meter_id
