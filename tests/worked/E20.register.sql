-- Register of a meter (validation of readings): a rollover is told from a register that went back, whose energy nobody knows; energy is the
-- difference times the ratios of the transformers.
SELECT
    n,
    CASE WHEN cur >= prev THEN 'normal' WHEN delta IS NOT NULL THEN 'rollover' WHEN cur < prev THEN 'rollback' END AS kind,
    coalesce(delta, CAST(cur AS DECIMAL(18, 4)) - CAST(prev AS DECIMAL(18, 4))) AS delta_register,
    delta * ct * pt AS kwh
FROM (SELECT *, register_delta_kwh(prev, cur, digits) AS delta FROM example) r
