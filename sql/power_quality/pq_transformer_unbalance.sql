/*---
id          = "pq_transformer_unbalance"
kind        = "alert"
title       = "Phase currents of a loaded transformer unbalanced for two hours"
title_zh    = "配变三相负荷不平衡"
severity    = "warning"
entity      = "meter_id"
standard    = "Q/GDW 1519"
category    = "load"
unit        = "%"
owner       = "distribution"
description = """
Largest less smallest 15-minute mean of the phase currents over the largest, while the transformer carries more than `min_load_pct` of its
capacity: below that the ratio says little, and the row says nothing. The limit follows the vector group (`unbalance_i_…` of scheme
`SGCC` in `pq_limits`: 15 % for Yyn0, 25 % for Dyn11, from practice). Fires once eight loaded windows in a row are above it; a value equal
to it is inside, and the first loaded window inside resolves. `mean_deviation_pct` is the other formula in use: the largest distance
from the mean over the mean. pq_current_unbalance judges single windows of any three-phase meter by its current alone.
"""
params      = { min_load_pct = 30.0 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CASE WHEN high_windows = 8 THEN true WHEN loaded AND unbalance_pct <= limit_pct THEN false END AS firing,
    unbalance_pct AS measured,
    limit_pct AS limit_high,
    '%' AS unit,
    mean_deviation_pct,
    load_pct,
    vector_group,
    mean_a_a,
    mean_b_a,
    mean_c_a,
    high_windows
FROM (
    SELECT
        *,
        -- The window itself and those of the 105 minutes before it: eight windows of a quarter of an hour.
        sum(CASE WHEN loaded AND unbalance_pct > limit_pct THEN 1 ELSE 0 END) OVER (
            PARTITION BY meter_id ORDER BY window_start RANGE INTERVAL '105 minutes' PRECEDING
        ) AS high_windows
    FROM (
        SELECT
            i.meter_id,
            i.window_start,
            i.window_end,
            i.vector_group,
            i.load_pct,
            coalesce(i.load_pct >= $min_load_pct, false) AS loaded,
            i.mean_a_a,
            i.mean_b_a,
            i.mean_c_a,
            l.limit_high AS limit_pct,
            CAST(
                100 * (greatest(i.mean_a_a, i.mean_b_a, i.mean_c_a) - least(i.mean_a_a, i.mean_b_a, i.mean_c_a))
                    / nullif(greatest(i.mean_a_a, i.mean_b_a, i.mean_c_a), 0) AS DECIMAL(12, 6)
            ) AS unbalance_pct,
            CAST(
                100 * greatest(
                    abs(2 * i.mean_a_a - i.mean_b_a - i.mean_c_a),
                    abs(2 * i.mean_b_a - i.mean_a_a - i.mean_c_a),
                    abs(2 * i.mean_c_a - i.mean_a_a - i.mean_b_a)
                ) / nullif(i.mean_a_a + i.mean_b_a + i.mean_c_a, 0) AS DECIMAL(12, 6)
            ) AS mean_deviation_pct
        FROM pq_load_windows i
        JOIN pq_limits l ON l.scheme = 'SGCC' AND l.quantity = concat('unbalance_i_', i.vector_group)
        WHERE i.mean_a_a >= 0 AND i.mean_b_a >= 0 AND i.mean_c_a >= 0 AND i.mean_a_a + i.mean_b_a + i.mean_c_a > 0
    ) p
) r
