-- Labelled anomalies with an outlier of d02 in them, and outliers in none.
WITH devices AS (SELECT DISTINCT device_id FROM device_metrics WHERE device_id LIKE 'nab/%'),
hits AS (
    SELECT a.device_id, a.begins, a.ends, count(o.ts) AS outliers
    FROM anomaly_windows a
    LEFT JOIN outliers o ON o.device_id = a.device_id AND o.ts BETWEEN a.begins AND a.ends
    GROUP BY a.device_id, a.begins, a.ends
),
windows AS (
    SELECT device_id, count(*) AS windows, count(*) FILTER (WHERE outliers > 0) AS windows_hit
    FROM hits
    GROUP BY device_id
),
outside AS (
    SELECT device_id, count(*) AS outliers
    FROM outliers o
    WHERE NOT EXISTS (
        SELECT 1 FROM anomaly_windows a WHERE a.device_id = o.device_id AND o.ts BETWEEN a.begins AND a.ends
    )
    GROUP BY device_id
)
SELECT
    d.device_id AS key,
    coalesce(w.windows, 0) AS windows,
    coalesce(w.windows_hit, 0) AS windows_hit,
    coalesce(o.outliers, 0) AS outliers_outside
FROM devices d
LEFT JOIN windows w ON w.device_id = d.device_id
LEFT JOIN outside o ON o.device_id = d.device_id
