-- Hampel identifier: a value's distance from the median of its window over 1.4826 times the median of the distances.
WITH samples AS (SELECT n, x[idx + 1] AS judged, k, unnest(x) AS v FROM example),
medians AS (SELECT n, min(judged) AS judged, min(k) AS k, median(v) AS median FROM samples GROUP BY n),
scores AS (
    SELECT m.n, m.k, m.judged, m.median, median(abs(s.v - m.median)) AS mad
    FROM medians m
    JOIN samples s ON s.n = m.n
    GROUP BY m.n, m.k, m.judged, m.median
)
SELECT
    n,
    median,
    round(mad, 6) AS mad,
    round(abs(judged - median) / nullif(1.4826 * mad, 0), 6) AS score,
    abs(judged - median) > k * 1.4826 * mad AS outlier
FROM scores
