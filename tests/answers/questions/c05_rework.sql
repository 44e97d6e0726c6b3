-- Steps that were taken twice in a row, and the cases with one.
WITH logs AS (SELECT DISTINCT process_type FROM business_transactions)
SELECT l.process_type AS key, count(r.case_id) AS repeats, count(DISTINCT r.case_id) AS cases
FROM logs l
LEFT JOIN repeated_steps r ON r.process_type = l.process_type
GROUP BY l.process_type
