-- Energy of each meter and local day.
SELECT
    meter_id AS key,
    to_char(window_start + CAST(tz_offset_min || ' minutes' AS INTERVAL), '%Y-%m-%d') AS key_2,
    CAST(CAST(sum(p_sum_kw) AS DECIMAL(28, 15)) / 60 AS DECIMAL(18, 9)) AS value
FROM quarter_hours
WHERE p_values > 0
GROUP BY 1, 2
