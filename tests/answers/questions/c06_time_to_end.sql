-- Cases that reached an end of their process, and the seconds from their first event to the first such end.
WITH cases AS (
    SELECT
        b.process_type,
        CAST(extract(epoch FROM min(b.event_ts) FILTER (WHERE s.kind IN ('last', 'aborted'))) AS DECIMAL(18, 6))
            - CAST(extract(epoch FROM min(b.event_ts)) AS DECIMAL(18, 6)) AS seconds
    FROM business_transactions b
    LEFT JOIN workflow_steps s ON s.process_type = b.process_type AND s.step = b.step
    WHERE b.process_type IN (SELECT process_type FROM workflow_steps)
    GROUP BY b.process_type, b.case_id
)
SELECT
    process_type AS key,
    count(seconds) AS ended,
    CAST(median(seconds) AS DECIMAL(18, 3)) AS median_s,
    CAST(max(seconds) AS DECIMAL(18, 3)) AS max_s
FROM cases
GROUP BY process_type
