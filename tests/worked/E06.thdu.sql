-- GB/T 14549-1993, clause 4, table 1: voltage distortion and harmonic ratios of 0.38 kV systems; limits of THD, odd and even orders.
SELECT
    n,
    thdu_pct,
    named_struct(
        '3', CAST(u3 * 100 / u1 AS DECIMAL(12, 6)),
        '5', CAST(u5 * 100 / u1 AS DECIMAL(12, 6)),
        '7', CAST(u7 * 100 / u1 AS DECIMAL(12, 6)),
        '11', CAST(u11 * 100 / u1 AS DECIMAL(12, 6)),
        '13', CAST(u13 * 100 / u1 AS DECIMAL(12, 6))
    ) AS hru_pct,
    [limit_thd_pct, limit_odd_pct, limit_even_pct] AS "lim_0.38kV",
    thdu_pct > limit_thd_pct OR greatest(u3, u5, u7, u11, u13) * 100 > limit_odd_pct * u1 AS violation
FROM (
    SELECT
        *,
        CAST(100 * sqrt(u3 * u3 + u5 * u5 + u7 * u7 + u11 * u11 + u13 * u13) / u1 AS DECIMAL(12, 6)) AS thdu_pct,
        5.0 AS limit_thd_pct,
        4.0 AS limit_odd_pct,
        2.0 AS limit_even_pct
    FROM (
        SELECT
            n,
            CAST(rms_v_by_order_1 AS DECIMAL(12, 6)) AS u1,
            CAST(rms_v_by_order_3 AS DECIMAL(12, 6)) AS u3,
            CAST(rms_v_by_order_5 AS DECIMAL(12, 6)) AS u5,
            CAST(rms_v_by_order_7 AS DECIMAL(12, 6)) AS u7,
            CAST(rms_v_by_order_11 AS DECIMAL(12, 6)) AS u11,
            CAST(rms_v_by_order_13 AS DECIMAL(12, 6)) AS u13
        FROM example
    ) u
) h
