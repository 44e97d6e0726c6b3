-- (83) 水电财字215号: adjustment of the fee by the power factor of a month. Reactive energy counts in both directions, and the factor is rounded
-- half up to two digits before the table is read. A band begins at `pf_from` with `pct_from` and goes on by `pct_step` with each 0.01.
WITH bands (std, pf_from, pf_below, pct_from, pct_step) AS (
    VALUES
        (0.90, 0.00, 0.65, 145.00, -2.00), (0.90, 0.65, 0.70, 15.00, -1.00), (0.90, 0.70, 0.90, 10.00, -0.50),
        (0.90, 0.90, 0.95, 0.00, -0.15), (0.90, 0.95, 1.01, -0.75, 0.00),
        (0.85, 0.00, 0.60, 135.00, -2.00), (0.85, 0.60, 0.65, 15.00, -1.00), (0.85, 0.65, 0.85, 10.00, -0.50),
        (0.85, 0.85, 0.90, 0.00, -0.10), (0.85, 0.90, 0.94, -0.50, -0.15), (0.85, 0.94, 1.01, -1.10, 0.00),
        (0.80, 0.00, 0.55, 125.00, -2.00), (0.80, 0.55, 0.60, 15.00, -1.00), (0.80, 0.60, 0.80, 10.00, -0.50),
        (0.80, 0.80, 0.90, 0.00, -0.10), (0.80, 0.90, 0.92, -1.00, -0.15), (0.80, 0.92, 1.01, -1.30, 0.00)
),
energies AS (
    SELECT *, abs(kvarh_imp) + abs(kvarh_exp) AS kvarh
    FROM example
),
factors AS (
    SELECT
        *,
        CAST(kwh / sqrt(nullif(kwh * kwh + kvarh * kvarh, 0)) AS DECIMAL(12, 9)) AS pf_raw
    FROM energies
),
rounded AS (SELECT *, CAST(pf_raw AS DECIMAL(3, 2)) AS pf FROM factors),
adjusted AS (
    SELECT r.*, b.pct_from + (r.pf - b.pf_from) * 100 * b.pct_step AS adj_pct
    FROM rounded r
    LEFT JOIN bands b ON b.std = CAST(r.std AS DECIMAL(3, 2)) AND r.pf >= b.pf_from AND r.pf < b.pf_below
)
SELECT
    n,
    CAST(pf_raw AS DECIMAL(12, 6)) AS pf_raw,
    pf,
    adj_pct,
    CAST(CAST(base_yuan AS DECIMAL(18, 4)) * adj_pct / 100 AS DECIMAL(18, 2)) AS adj_yuan
FROM adjusted
