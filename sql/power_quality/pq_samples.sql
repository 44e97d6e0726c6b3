/*---
id          = "pq_samples"
kind        = "view"
title       = "Readings of registered points, one row a value"
title_zh    = "监测点读数(每值一行)"
standard    = "internal"
category    = "pq"
owner       = "power-quality"
description = """
The values of pq_readings as rows of quantity, phase and harmonic order, so that limits can be joined to them by name. Values
that are missing, negative or (ratios) above `max_ratio_pct` of pq_readings have no row. Quantities: `u_phase`, `u_line`, `frequency`, `unbalance_u`, `thd_u`, `harmonic_u`,
`interharmonic_u`, `harmonic_i`, `rms_harmonic_i` (root of the sum of squares of the list),
`negative_sequence_i`. The lists of harmonics carry no phase (`phase` is `all`): whether they are those of the worst one
depends on the meter. Their first element is order 2, of interharmonics that between orders 0 and 1 (`harmonic_order` 0).
A distortion of the list stands where the meter gives none by phase. `base` is what a limit in percent is a share of: the nominal
voltage or frequency, else 100. The lists hold 32-bit floats: four decimals are what they can tell apart.
"""
params      = { nominal_hz = 50.0 }
---*/
SELECT meter_id, at, org_id, grid, line_v, flagged, left_out, flag_policy, basis_rank, quantity, phase, harmonic_order, base, value
FROM (
    SELECT
        meter_id, at, org_id, grid, line_v, flagged, left_out, flag_policy, basis_rank, max_ratio_pct,
        unnest(['u_phase', 'u_phase', 'u_phase', 'u_line', 'u_line', 'u_line', 'frequency', 'unbalance_u', 'thd_u', 'thd_u', 'thd_u', 'thd_u',
            'rms_harmonic_i', 'negative_sequence_i']) AS quantity,
        unnest(['a', 'b', 'c', 'ab', 'bc', 'ca', 'all', 'all', 'a', 'b', 'c', 'all', 'all', 'all']) AS phase,
        CAST(0 AS BIGINT) AS harmonic_order,
        unnest([phase_v, phase_v, phase_v, line_v, line_v, line_v,
            $nominal_hz, CAST(100 AS DECIMAL(15, 6)), CAST(100 AS DECIMAL(15, 6)), CAST(100 AS DECIMAL(15, 6)),
            CAST(100 AS DECIMAL(15, 6)), CAST(100 AS DECIMAL(15, 6)), CAST(100 AS DECIMAL(15, 6)),
            CAST(100 AS DECIMAL(15, 6))]) AS base,
        unnest([u_a_v, u_b_v, u_c_v, u_ab_v, u_bc_v, u_ca_v, CAST(freq_hz AS DECIMAL(18, 6)), CAST(unbalance_pct AS DECIMAL(18, 6)),
            CAST(thd_u_a_pct AS DECIMAL(18, 6)), CAST(thd_u_b_pct AS DECIMAL(18, 6)), CAST(thd_u_c_pct AS DECIMAL(18, 6)),
            CASE WHEN coalesce(thd_u_a_pct, thd_u_b_pct, thd_u_c_pct) IS NULL AND cardinality(u_h) > 0 THEN
                TRY_CAST(array_distance(u_h, array_repeat(CAST(0 AS FLOAT), cardinality(u_h))) AS DECIMAL(18, 6))
            END,
            CASE WHEN cardinality(i_h) > 0 THEN
                TRY_CAST(array_distance(i_h, array_repeat(CAST(0 AS FLOAT), cardinality(i_h))) * CAST(ct_ratio AS DOUBLE) AS DECIMAL(18, 6))
            END,
            i2_a]) AS value
    FROM pq_readings
    UNION ALL
    SELECT
        meter_id, at, org_id, grid, line_v, flagged, left_out, flag_policy, basis_rank, max_ratio_pct,
        'harmonic_u' AS quantity, 'all' AS phase, unnest(range(2, 51)) AS harmonic_order,
        CAST(100 AS DECIMAL(15, 6)) AS base, CAST(TRY_CAST(unnest(array_slice(u_h, 1, 49)) AS DECIMAL(14, 4)) AS DECIMAL(18, 6)) AS value
    FROM pq_readings
    WHERE cardinality(u_h) > 0
    UNION ALL
    SELECT
        meter_id, at, org_id, grid, line_v, flagged, left_out, flag_policy, basis_rank, max_ratio_pct,
        'harmonic_i' AS quantity, 'all' AS phase, unnest(range(2, 51)) AS harmonic_order,
        CAST(100 AS DECIMAL(15, 6)) AS base,
        TRY_CAST(TRY_CAST(unnest(array_slice(i_h, 1, 49)) AS DECIMAL(12, 4)) * ct_ratio AS DECIMAL(18, 6)) AS value
    FROM pq_readings
    WHERE cardinality(i_h) > 0
    UNION ALL
    SELECT
        meter_id, at, org_id, grid, line_v, flagged, left_out, flag_policy, basis_rank, max_ratio_pct,
        'interharmonic_u' AS quantity, 'all' AS phase, unnest(range(0, 16)) AS harmonic_order,
        CAST(100 AS DECIMAL(15, 6)) AS base, CAST(TRY_CAST(unnest(array_slice(u_ih, 1, 16)) AS DECIMAL(14, 4)) AS DECIMAL(18, 6)) AS value
    FROM pq_readings
    WHERE cardinality(u_ih) > 0
) s
WHERE value >= 0 AND (quantity NOT IN ('thd_u', 'harmonic_u', 'interharmonic_u') OR value <= max_ratio_pct)
