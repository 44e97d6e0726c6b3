-- Upward CUSUM, S = max(0, S + x - mu - k), alarm when S > h. The running sum above its lowest value so far is the same.
WITH samples AS (
    SELECT n, h, unnest(range(0, array_length(x))) AS t, CAST(unnest(x) AS DECIMAL(12, 6)) - mu - CAST(k AS DECIMAL(12, 6)) AS excess
    FROM example
),
sums AS (SELECT n, h, t, sum(excess) OVER (PARTITION BY n ORDER BY t) AS total FROM samples),
steps AS (SELECT n, h, t, total - least(0, min(total) OVER (PARTITION BY n ORDER BY t)) AS s FROM sums)
SELECT
    n,
    array_agg(s ORDER BY t) AS "S",
    min(t) FILTER (WHERE s > h) AS first_alarm_index
FROM steps
GROUP BY n
