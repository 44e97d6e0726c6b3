-- Rows and meters of readings, and how many meters have how many rows.
WITH of_meter AS (SELECT meter_id, count(*) AS n FROM readings GROUP BY meter_id),
of_count AS (SELECT n, count(*) AS meters FROM of_meter GROUP BY n)
SELECT
    sum(n * meters) AS rows,
    sum(meters) AS meters,
    map(array_agg(CAST(n AS VARCHAR) ORDER BY n), array_agg(meters ORDER BY n)) AS rows_per_meter
FROM of_count
