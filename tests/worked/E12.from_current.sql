-- Q/GDW 1519: load of a transformer from its line voltage and phase currents, of their mean and of the highest phase.
SELECT
    n,
    round(kva_per_a * mean_a, 6) AS s_kva_avg_i,
    round(100 * kva_per_a * mean_a / sn_kva, 6) AS beta_pct,
    round(100 * kva_per_a * highest_a / sn_kva, 6) AS beta_max_phase_pct
FROM (
    SELECT
        n,
        sn_kva,
        sqrt(3) * u_line_v / 1000 AS kva_per_a,
        (i_a[1] + i_a[2] + i_a[3]) / 3 AS mean_a,
        greatest(i_a[1], i_a[2], i_a[3]) AS highest_a
    FROM example
) l
