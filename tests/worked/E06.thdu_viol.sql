-- GB/T 14549-1993, clause 4, table 1: 0.38 kV systems, total distortion <= 5 %, odd orders <= 4 %.
SELECT
    n,
    thdu_pct,
    CAST(u5 * 100 / u1 AS DECIMAL(12, 6)) AS hru5_pct,
    thdu_pct > limit_thd_pct AS viol_thd_5pct,
    greatest(u5, u7) * 100 > limit_odd_pct * u1 AS viol_odd_4pct
FROM (
    SELECT
        *,
        CAST(100 * sqrt(u5 * u5 + u7 * u7) / u1 AS DECIMAL(12, 6)) AS thdu_pct,
        5.0 AS limit_thd_pct,
        4.0 AS limit_odd_pct
    FROM (
        SELECT
            n,
            CAST(rms_v_by_order_1 AS DECIMAL(12, 6)) AS u1,
            CAST(rms_v_by_order_5 AS DECIMAL(12, 6)) AS u5,
            CAST(rms_v_by_order_7 AS DECIMAL(12, 6)) AS u7
        FROM example
    ) u
) h
