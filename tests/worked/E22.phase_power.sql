-- Validation of readings: the active power of a meter against voltage times current times power factor of its phases.
SELECT
    n,
    p_calc_kw,
    CAST((p_meter_kw - p_calc_kw) * 100 / nullif(p_calc_kw, 0) AS DECIMAL(12, 6)) AS diff_pct
FROM (
    SELECT
        n,
        CAST(p_meter_kw AS DECIMAL(12, 6)) AS p_meter_kw,
        CAST((u[1] * i[1] * cos[1] + u[2] * i[2] * cos[2] + u[3] * i[3] * cos[3]) / 1000 AS DECIMAL(12, 6)) AS p_calc_kw
    FROM example
) p
