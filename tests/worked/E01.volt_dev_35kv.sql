-- GB/T 12325-2008, clause 4: 35 kV and above; the sum of both absolute deviations, or the larger one if they have the same sign, <= 10 %.
SELECT
    n,
    CAST(above * 100 / un AS DECIMAL(12, 6)) AS dev_max,
    CAST(below * 100 / un AS DECIMAL(12, 6)) AS dev_min,
    CAST(metric * 100 / un AS DECIMAL(12, 6)) AS metric_pct,
    metric * 100 > limit_pct * un AS violation
FROM (
    SELECT
        n,
        un,
        above,
        below,
        CASE WHEN above * below > 0 THEN greatest(abs(above), abs(below)) ELSE abs(above) + abs(below) END AS metric,
        10 AS limit_pct
    FROM (
        SELECT
            n,
            CAST(un_kv AS DECIMAL(12, 6)) AS un,
            CAST(umax_kv AS DECIMAL(12, 6)) - CAST(un_kv AS DECIMAL(12, 6)) AS above,
            CAST(umin_kv AS DECIMAL(12, 6)) - CAST(un_kv AS DECIMAL(12, 6)) AS below
        FROM example
    ) d
) m
