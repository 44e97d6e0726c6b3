/*---
id          = "pq_flicker"
kind        = "alert"
title       = "Long-term flicker severity above its limit"
title_zh    = "长时闪变超限"
severity    = "warning"
entity      = "meter_id"
standard    = "GB/T 12326-2008"
clause      = "5, table 2"
category    = "pq"
unit        = "1"
owner       = "power-quality"
description = """
Long-term flicker of each block of pq_plt_blocks against the limit `plt` of scheme `GB` in `pq_limits`: 1.0 up to 110 kV, 0.8 above.
A value equal to it is inside. Flicker makes light visibly unsteady; its usual causes are arc furnaces, welders and large motors that
start often. A block with fewer than twelve values, or left out because of a flagged one, gives a row without a verdict: it neither
opens nor resolves. The standard judges all values of a week; a firing row is one value that breaks it. To tolerate single blocks,
raise `resolve_after` or read pq_flicker_week instead.
"""
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CASE WHEN NOT left_out THEN value > limit_high END AS firing,
    CASE WHEN NOT left_out THEN value END AS measured,
    limit_high,
    unit,
    highest_pst,
    n_pst,
    n_flagged_pst,
    flag_policy,
    CASE basis_rank WHEN 3 THEN 'class_a' WHEN 2 THEN 'aggregated' ELSE 'instant' END AS basis,
    standard,
    clause
FROM pq_plt_blocks
WHERE scheme = 'GB'
