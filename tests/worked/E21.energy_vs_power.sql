-- Validation of readings: the energy of a day's register against the integral of its 96 powers, within 5 %.
WITH runs AS (SELECT n, register_delta_kwh, tol_pct, unnest(string_to_array(p_kw_96, ',')) AS run FROM example),
powers AS (
    SELECT
        n,
        register_delta_kwh,
        tol_pct,
        unnest(array_repeat(CAST(split_part(run, 'x', 2) AS DECIMAL(12, 6)), CAST(split_part(run, 'x', 1) AS BIGINT))) AS p_kw
    FROM runs
),
energies AS (
    SELECT
        n,
        CAST(sum(p_kw) * 0.25 AS DECIMAL(18, 6)) AS integral_kwh,
        CAST(min(register_delta_kwh) AS DECIMAL(18, 6)) AS register_kwh,
        min(tol_pct) AS tol_pct
    FROM powers
    GROUP BY n
)
SELECT
    n,
    integral_kwh,
    CAST((register_kwh - integral_kwh) * 100 / nullif(integral_kwh, 0) AS DECIMAL(12, 6)) AS diff_pct,
    abs(register_kwh - integral_kwh) * 100 > tol_pct * integral_kwh AS violation
FROM energies
