-- Highest mean power of fifteen full minutes, and when they began.
SELECT
    meter_id AS key,
    CAST(max(p_mean_kw) AS DECIMAL(18, 9)) AS kw,
    CAST(extract(epoch FROM first_value(window_start ORDER BY p_mean_kw DESC, window_start)) AS BIGINT) AS window_start_epoch
FROM quarter_hours
WHERE p_values = 15
GROUP BY meter_id
