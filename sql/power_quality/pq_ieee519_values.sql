/*---
id          = "pq_ieee519_values"
kind        = "view"
title       = "Voltage distortion, harmonics and harmonic currents in percent, for IEEE 519"
title_zh    = "IEEE 519 评估值"
standard    = "IEEE 519-2022"
clause      = "5.1, 5.2"
category    = "pq"
unit        = "%"
owner       = "power-quality"
description = """
Values of pq_samples that IEEE 519 limits: distortion and harmonics of the voltage in percent of the fundamental, harmonic currents and
their root of the sum of squares (`tdd`) in percent of the maximum demand load current `il_a` of `pq_points`, the mean of the monthly
maxima of a year. `isc_il` is the ratio of short-circuit to load current that chooses the row of the current limits. Without `il_a`
and `isc_a` currents have no value here, and pq_ieee519_days and _weeks say `not_assessable`.
"""
---*/
SELECT
    s.meter_id, s.at, s.line_v, s.flagged, s.left_out, s.flag_policy, s.basis_rank, s.phase, s.harmonic_order,
    CASE s.quantity WHEN 'rms_harmonic_i' THEN 'tdd' ELSE s.quantity END AS quantity,
    s.quantity IN ('harmonic_i', 'rms_harmonic_i') AS of_current,
    CASE WHEN s.quantity IN ('harmonic_i', 'rms_harmonic_i') THEN CAST(p.isc_a / nullif(p.il_a, 0) AS DECIMAL(18, 6)) END AS isc_il,
    CASE WHEN s.quantity NOT IN ('harmonic_i', 'rms_harmonic_i') THEN s.value
        WHEN p.il_a > 0 AND p.isc_a > 0 THEN TRY_CAST(100 * s.value / nullif(p.il_a, 0) AS DECIMAL(18, 6))
    END AS value
FROM pq_samples s
JOIN pq_points p ON p.meter_id = s.meter_id
WHERE s.quantity IN ('thd_u', 'harmonic_u', 'harmonic_i', 'rms_harmonic_i')
