-- Minutes of UCI-1 with more than 100 W, and those of them with a power factor below 0.9.
SELECT coalesce(sum(considered), 0) AS considered, coalesce(sum(low), 0) AS low
FROM power_factor_days
WHERE meter_id = 'UCI-1'
