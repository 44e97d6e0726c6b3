-- Two-part tariff: the power-factor adjustment applies to demand and energy fee, not to the government funds; each part is rounded half up.
WITH fees AS (
    SELECT
        *,
        CAST(demand_kw * CAST(demand_price AS DECIMAL(10, 4)) AS DECIMAL(18, 2)) AS basic,
        CAST(kwh * CAST(fund_per_kwh AS DECIMAL(10, 4)) AS DECIMAL(18, 2)) AS fund
    FROM example
),
bases AS (SELECT *, basic + CAST(energy_amt AS DECIMAL(18, 2)) AS pf_base FROM fees),
amounts AS (SELECT *, CAST(pf_base * CAST(pf_adj_pct AS DECIMAL(6, 2)) / 100 AS DECIMAL(18, 2)) AS pf_amt FROM bases)
SELECT
    n,
    CAST(basic AS VARCHAR) AS basic,
    CAST(pf_base AS VARCHAR) AS pf_base,
    CAST(pf_amt AS VARCHAR) AS pf_amt,
    CAST(fund AS VARCHAR) AS fund,
    CAST(pf_base + pf_amt + fund AS VARCHAR) AS total
FROM amounts
