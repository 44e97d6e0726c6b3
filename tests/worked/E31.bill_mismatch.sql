-- Billing: the billed amount against the one recomputed from the energy and the tiers of the tariff, within a tolerance of 0.01 yuan.
SELECT
    n,
    CAST(expected AS VARCHAR) AS expected,
    CAST(billed - expected AS VARCHAR) AS diff,
    abs(billed - expected) > tolerance AS violation
FROM (
    SELECT
        n,
        tiered_amount(0, kwh, [210, 400], [0.5469, 0.5969, 0.8469]) AS expected,
        CAST(billed AS DECIMAL(18, 2)) AS billed,
        CAST(tol AS DECIMAL(18, 2)) AS tolerance
    FROM example
) b
