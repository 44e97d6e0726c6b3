-- Devices: share of the window in which the device was online.
SELECT n, round(100 * CAST(online_min AS DOUBLE) / nullif(window_min, 0), 6) AS online_rate_pct
FROM example
