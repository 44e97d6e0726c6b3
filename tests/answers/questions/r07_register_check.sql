-- Advance of the register of each meter of the LV feeder.
SELECT meter_id AS key, last_value(last_kwh ORDER BY window_start) - first_value(first_kwh ORDER BY window_start) AS value
FROM register_days
WHERE meter_id LIKE 'LV-%'
GROUP BY meter_id
