-- Cases that reached their end without a required step (alerts of tx_incomplete_case), by that step.
SELECT
    regexp_match(evidence, '"process_type":"([^"]*)"')[1] AS key,
    regexp_match(evidence, '"required_step":"([^"]*)"')[1] AS key_2,
    count(DISTINCT fingerprint) AS value
FROM alerts
WHERE rule_id = 'tx_incomplete_case' AND status = 'open'
GROUP BY 1, 2
