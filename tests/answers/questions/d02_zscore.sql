-- Values more than six standard deviations off the mean of the 288 before, and the first three of each series.
WITH found AS (
    SELECT device_id, metric, count(*) AS outliers, array_agg(local_ts ORDER BY ts) AS times
    FROM outliers
    GROUP BY device_id, metric
),
series AS (SELECT DISTINCT device_id, metric FROM device_metrics)
SELECT
    s.device_id || '|' || s.metric AS key,
    coalesce(f.outliers, 0) AS outliers,
    coalesce(array_slice(f.times, 1, 3), make_array()) AS first
FROM series s
LEFT JOIN found f ON f.device_id = s.device_id AND f.metric = s.metric
