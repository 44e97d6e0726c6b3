-- Minutes between the first and the last reading of a meter that have none.
SELECT meter_id AS key, sum(minutes) AS value
FROM absent_minutes
GROUP BY meter_id
