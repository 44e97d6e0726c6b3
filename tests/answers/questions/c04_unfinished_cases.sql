-- Cases whose last step does not end their process, by that step.
WITH ends AS (
    SELECT process_type, case_id, last_value(step ORDER BY event_ts, seq_no) AS step
    FROM business_transactions
    GROUP BY process_type, case_id
)
SELECT e.process_type AS key, e.step AS key_2, count(*) AS value
FROM ends e
WHERE e.process_type IN (SELECT process_type FROM workflow_steps)
    AND NOT EXISTS (
        SELECT 1
        FROM workflow_steps s
        WHERE s.process_type = e.process_type AND s.step = e.step AND s.kind IN ('last', 'aborted')
    )
GROUP BY e.process_type, e.step
