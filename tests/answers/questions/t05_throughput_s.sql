-- Seconds from the first to the last event of a case. A percentile lies between two cases, in proportion: each counts by
-- how near its rank is to that share of the last rank.
WITH cases AS (
    SELECT
        process_type,
        CAST(extract(epoch FROM max(event_ts)) AS DECIMAL(18, 6)) - CAST(extract(epoch FROM min(event_ts)) AS DECIMAL(18, 6)) AS seconds
    FROM business_transactions
    GROUP BY process_type, case_id
),
ranked AS (
    SELECT
        process_type,
        seconds,
        row_number() OVER (PARTITION BY process_type ORDER BY seconds) - 1 AS rank,
        count(*) OVER (PARTITION BY process_type) - 1 AS last_rank
    FROM cases
)
SELECT
    process_type AS key,
    CAST(sum(seconds * greatest(1 - abs(rank - 0.50 * last_rank), 0)) AS DECIMAL(18, 3)) AS p50,
    CAST(sum(seconds * greatest(1 - abs(rank - 0.95 * last_rank), 0)) AS DECIMAL(18, 3)) AS p95,
    CAST(sum(seconds * greatest(1 - abs(rank - 0.99 * last_rank), 0)) AS DECIMAL(18, 3)) AS p99,
    CAST(max(seconds) AS DECIMAL(18, 3)) AS max
FROM ranked
GROUP BY process_type
