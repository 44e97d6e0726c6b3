/*---
id          = "pq_neutral_current"
kind        = "alert"
title       = "Neutral current above its share of the rated current for two hours"
title_zh    = "中性线电流超限"
severity    = "warning"
entity      = "meter_id"
standard    = "Q/GDW 1519"
category    = "pq"
unit        = "A"
owner       = "power-quality"
description = """
15-minute mean of the neutral current against the share of the rated current that the vector group of the transformer allows
(`neutral_i_…` of scheme `SGCC` in `pq_limits`: 25 % for Yyn0, 40 % for Dyn11; taken from practice, not checked against the printed
standard). The rated current is `sn_kva` over the root of 3 and `line_v` of `pq_points`; points without capacity or vector group are not
judged. Fires once eight windows in a row are above the limit; a value equal to it is inside. Neutral current comes from unequal phases
and from harmonics of orders divisible by 3; it heats the neutral and shifts the phase voltages. While the current is too high but not
yet for two hours, `firing` is null and an open alert stays; the first window at or below the limit resolves it. A missing window begins
the two hours anew.
"""
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CASE WHEN high_windows = 8 THEN true WHEN mean_n_a <= limit_a THEN false END AS firing,
    mean_n_a AS measured,
    limit_a AS limit_high,
    'A' AS unit,
    round(100 * CAST(mean_n_a AS DOUBLE) / rated_a, 6) AS of_rated_pct,
    limit_pct,
    vector_group,
    high_windows
FROM (
    SELECT
        *,
        -- The window itself and those of the 105 minutes before it: eight windows of a quarter of an hour.
        sum(CASE WHEN mean_n_a > limit_a THEN 1 ELSE 0 END) OVER (
            PARTITION BY meter_id ORDER BY window_start RANGE INTERVAL '105 minutes' PRECEDING
        ) AS high_windows
    FROM (
        SELECT
            n.meter_id,
            n.window_start,
            n.window_end,
            n.mean_n_a,
            n.vector_group,
            l.limit_high AS limit_pct,
            1000 * CAST(n.capacity_kva AS DOUBLE) / (sqrt(3.0) * CAST(nullif(n.line_v, 0) AS DOUBLE)) AS rated_a,
            TRY_CAST(
                10 * CAST(n.capacity_kva AS DOUBLE) / (sqrt(3.0) * CAST(nullif(n.line_v, 0) AS DOUBLE)) * CAST(l.limit_high AS DOUBLE)
                    AS DECIMAL(12, 6)
            ) AS limit_a
        FROM pq_load_windows n
        JOIN pq_limits l ON l.scheme = 'SGCC' AND l.quantity = concat('neutral_i_', n.vector_group)
        WHERE n.mean_n_a IS NOT NULL
    ) p
) r
