-- Steps that may not follow the one before them (alerts of tx_illegal_transition), and the cases with one.
WITH told AS (
    SELECT
        regexp_match(evidence, '"process_type":"([^"]*)"')[1] AS process_type,
        regexp_match(evidence, '"case_id":"([^"]*)"')[1] AS case_id,
        regexp_match(evidence, '"reason":"([^"]*)"')[1] AS reason
    FROM alerts
    WHERE rule_id = 'tx_illegal_transition' AND status = 'open'
),
logs AS (
    SELECT DISTINCT b.process_type
    FROM business_transactions b
    JOIN workflow_steps s ON s.process_type = b.process_type
)
SELECT
    l.process_type AS key,
    count(t.case_id) AS transitions,
    count(*) FILTER (WHERE t.reason = 'not_allowed') AS not_allowed,
    count(*) FILTER (WHERE t.reason = 'after_end') AS after_end,
    count(*) FILTER (WHERE t.reason = 'unknown_step') AS unknown_step,
    count(DISTINCT t.case_id) AS cases
FROM logs l
LEFT JOIN told t ON t.process_type = l.process_type
GROUP BY l.process_type
