-- Rows, median step, gaps and repeated times of each series.
WITH steps AS (
    SELECT
        device_id || '|' || metric AS series,
        extract(epoch FROM ts) - extract(epoch FROM lag(ts) OVER (PARTITION BY device_id, metric ORDER BY ts)) AS step_s
    FROM device_metrics
),
medians AS (SELECT series, count(*) AS rows, median(step_s) AS median_s, max(step_s) AS max_s FROM steps GROUP BY series)
SELECT
    s.series AS key,
    max(m.rows) AS rows,
    round(max(m.median_s), 9) AS median_step_s,
    count(*) FILTER (WHERE s.step_s > 1.5 * m.median_s) AS gaps,
    count(*) FILTER (WHERE s.step_s = 0) AS duplicate_ts,
    round(max(m.max_s), 9) AS max_gap_s
FROM steps s
JOIN medians m ON m.series = s.series
GROUP BY s.series
