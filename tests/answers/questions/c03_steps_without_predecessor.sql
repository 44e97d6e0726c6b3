-- Cases with a step that came before all of those it may follow (alerts of tx_step_without_predecessor), by that step.
SELECT
    regexp_match(evidence, '"process_type":"([^"]*)"')[1] AS key,
    regexp_match(evidence, '"step":"([^"]*)"')[1] AS key_2,
    count(DISTINCT fingerprint) AS value
FROM alerts
WHERE rule_id = 'tx_step_without_predecessor' AND status = 'open'
GROUP BY 1, 2
