-- Events, cases, activities, and different ways of the cases of each log.
WITH ways AS (
    SELECT process_type, case_id, count(*) AS events, string_agg(step, '>' ORDER BY seq_no) AS way
    FROM business_transactions
    GROUP BY process_type, case_id
),
logs AS (SELECT process_type, count(DISTINCT step) AS activities FROM business_transactions GROUP BY process_type)
SELECT
    w.process_type AS key,
    sum(w.events) AS events,
    count(*) AS cases,
    max(l.activities) AS activities,
    count(DISTINCT w.way) AS variants
FROM ways w
JOIN logs l ON l.process_type = w.process_type
GROUP BY w.process_type
