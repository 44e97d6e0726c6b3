-- GB/T 14549-1993, clause 5, table 2, annexes B and C: harmonic current allowed to all users of a point, and to one by its share of the supply.
WITH limits (kv, sk_base_mva, limit_a_of_order_2_to_25) AS (
    VALUES
        (0.38, 10, [78, 62, 39, 62, 26, 44, 19, 21, 16, 28, 13, 24, 11, 12, 9.7, 18, 8.6, 16, 7.8, 8.9, 7.1, 14, 6.5, 12]),
        (6, 100, [43, 34, 21, 34, 14, 24, 11, 11, 8.5, 16, 7.1, 13, 6.1, 6.8, 5.3, 10, 4.7, 9.0, 4.3, 4.9, 3.9, 7.4, 3.6, 6.8]),
        (10, 100, [26, 20, 13, 20, 8.5, 15, 6.4, 6.8, 5.1, 9.3, 4.3, 7.9, 3.7, 4.1, 3.2, 6.0, 2.8, 5.4, 2.6, 2.9, 2.3, 4.5, 2.1, 4.1]),
        (35, 250, [15, 12, 7.7, 12, 5.1, 8.8, 3.8, 4.1, 3.1, 5.6, 2.6, 4.7, 2.2, 2.5, 1.9, 3.6, 1.7, 3.2, 1.5, 1.8, 1.4, 2.7, 1.3, 2.5]),
        (66, 500, [16, 13, 8.1, 13, 5.4, 9.3, 4.1, 4.3, 3.3, 5.9, 2.7, 5.0, 2.3, 2.6, 2.0, 3.8, 1.8, 3.4, 1.6, 1.9, 1.5, 2.8, 1.4, 2.6]),
        (110, 750, [12, 9.6, 6.0, 9.6, 4.0, 6.8, 3.0, 3.2, 2.4, 4.3, 2.0, 3.7, 1.7, 1.9, 1.5, 2.8, 1.3, 2.5, 1.2, 1.4, 1.1, 2.1, 1.0, 1.9])
)
SELECT
    n,
    round(all_users_a, 6) AS all_users_a,
    round(all_users_a * power(least(si_mva / st_mva, 1), 1 / CAST(alpha AS DOUBLE)), 6) AS user_a
FROM (
    SELECT
        e.n,
        e.si_mva,
        e.st_mva,
        CAST(l.limit_a_of_order_2_to_25[e.h - 1] AS DOUBLE) * e.sk_mva / l.sk_base_mva AS all_users_a,
        CASE e.h WHEN 3 THEN 1.1 WHEN 5 THEN 1.2 WHEN 7 THEN 1.4 WHEN 11 THEN 1.8 WHEN 13 THEN 1.9 ELSE 2.0 END AS alpha
    FROM example e
    LEFT JOIN limits l ON CAST(l.kv AS DECIMAL(6, 2)) = CAST(e.kv AS DECIMAL(6, 2))
) u
