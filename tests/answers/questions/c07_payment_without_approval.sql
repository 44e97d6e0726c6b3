-- Payments of declarations that no final approval came before (alerts of tx_missing_step).
SELECT count(*) AS payments, count(DISTINCT entity_id) AS cases
FROM alerts
WHERE rule_id = 'tx_missing_step'
