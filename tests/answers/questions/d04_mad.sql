-- Values more than eight robust standard deviations off the median of their series; null where these do not differ.
WITH medians AS (
    SELECT device_id, metric, median(value) AS middle FROM device_metrics GROUP BY device_id, metric
),
distances AS (
    SELECT d.device_id, d.metric, abs(d.value - m.middle) AS distance
    FROM device_metrics d
    JOIN medians m ON m.device_id = d.device_id AND m.metric = d.metric
),
scales AS (
    SELECT device_id, metric, median(distance) AS mad FROM distances GROUP BY device_id, metric
)
SELECT
    d.device_id || '|' || d.metric AS key,
    CASE WHEN max(s.mad) > 0 THEN count(*) FILTER (WHERE s.mad > 0 AND d.distance > 8 * CAST(1.4826 AS DOUBLE) * s.mad) END AS value
FROM distances d
JOIN scales s ON s.device_id = d.device_id AND s.metric = d.metric
GROUP BY d.device_id, d.metric
