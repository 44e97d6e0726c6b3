/*---
id          = "pq_readings"
kind        = "view"
title       = "Readings of registered points, flagged, plausible and on the primary side"
title_zh    = "监测点读数(标记处理、合理性检查、一次侧)"
standard    = "IEC 61000-4-30:2015"
clause      = "4.7"
category    = "pq"
owner       = "power-quality"
description = """
What the power quality rules read: readings of the points in `pq_points` as that table stands at the time of the reading. Other
meters are not judged. `at` is the last instant of the interval that the reading closes, so that a reading stamped 00:10
belongs to the ten minutes before. Voltages and currents are times the ratios of their transformers
in `pq_points` (empty or 1 where meters report primary values).
`flagged` is the mark of the meter that a dip, swell or interruption fell into the interval. `left_out` is what follows from it,
set here for all rules by `flag_policy`: `exclude_flagged` leaves flagged readings out of the statistics, `exclude_interruption`
only those with an interruption (`pq_interrupted`; a flagged reading that does not say counts as interrupted), `include` none. The
standard asks for the mark and leaves the choice to the contract.
`basis_rank` is 3 for class A aggregates, 2 for other aggregates, 1 for instants and unknown ones: only verdicts from class A values
are statements about a standard.
A voltage below `outage_pct` of nominal is outage and no voltage: it is no run time, and the interval counts as missing. A value that
cannot be is none either: negative magnitudes, voltages above `max_voltage_pu` of nominal, ratios above `max_ratio_pct`,
frequencies outside `min_hz` to `max_hz`, short-term flicker above `max_pst`. rd_out_of_range reports such values.
"""
params      = { flag_policy = "exclude_flagged", outage_pct = 5.0, max_voltage_pu = 3.0, max_ratio_pct = 400.0, min_hz = 30.0, max_hz = 70.0, max_pst = 100.0 }
---*/
SELECT
    meter_id,
    ts,
    at,
    org_id,
    grid,
    phase_v,
    line_v,
    flagged,
    left_out,
    $flag_policy AS flag_policy,
    basis_rank,
    CASE WHEN u_a_v BETWEEN $outage_pct / 100 * phase_v AND $max_voltage_pu * phase_v THEN u_a_v END AS u_a_v,
    CASE WHEN u_b_v BETWEEN $outage_pct / 100 * phase_v AND $max_voltage_pu * phase_v THEN u_b_v END AS u_b_v,
    CASE WHEN u_c_v BETWEEN $outage_pct / 100 * phase_v AND $max_voltage_pu * phase_v THEN u_c_v END AS u_c_v,
    CASE WHEN u_ab_v BETWEEN $outage_pct / 100 * line_v AND $max_voltage_pu * line_v THEN u_ab_v END AS u_ab_v,
    CASE WHEN u_bc_v BETWEEN $outage_pct / 100 * line_v AND $max_voltage_pu * line_v THEN u_bc_v END AS u_bc_v,
    CASE WHEN u_ca_v BETWEEN $outage_pct / 100 * line_v AND $max_voltage_pu * line_v THEN u_ca_v END AS u_ca_v,
    CASE WHEN freq_hz BETWEEN $min_hz AND $max_hz THEN freq_hz END AS freq_hz,
    -- From the phasors, else from the line voltages, else as the meter says. Magnitudes of the phases alone do not give it.
    coalesce(
        CASE
            WHEN u_a_v > 0 AND u_b_v > 0 AND u_c_v > 0 AND greatest(u_a_v, u_b_v, u_c_v) <= $max_voltage_pu * phase_v
                AND least(u_a_v, u_b_v, u_c_v) >= $outage_pct / 100 * phase_v
                AND abs(ua_deg) <= 360 AND abs(ub_deg) <= 360 AND abs(uc_deg) <= 360
                THEN TRY_CAST(
                    voltage_unbalance_pct(
                        CAST(u_a_v AS DOUBLE), ua_deg, CAST(u_b_v AS DOUBLE), ub_deg, CAST(u_c_v AS DOUBLE), uc_deg
                    ) AS DECIMAL(12, 6)
                )
        END,
        CASE
            WHEN u_ab_v > 0 AND u_bc_v > 0 AND u_ca_v > 0 AND greatest(u_ab_v, u_bc_v, u_ca_v) <= $max_voltage_pu * line_v
                AND least(u_ab_v, u_bc_v, u_ca_v) >= $outage_pct / 100 * line_v
                THEN TRY_CAST(
                    voltage_unbalance_line_pct(CAST(u_ab_v AS DOUBLE), CAST(u_bc_v AS DOUBLE), CAST(u_ca_v AS DOUBLE)) AS DECIMAL(12, 6)
                )
        END,
        CASE WHEN u2_u1_pct BETWEEN 0 AND $max_ratio_pct THEN u2_u1_pct END
    ) AS unbalance_pct,
    CASE WHEN thd_u_a_pct BETWEEN 0 AND $max_ratio_pct THEN thd_u_a_pct END AS thd_u_a_pct,
    CASE WHEN thd_u_b_pct BETWEEN 0 AND $max_ratio_pct THEN thd_u_b_pct END AS thd_u_b_pct,
    CASE WHEN thd_u_c_pct BETWEEN 0 AND $max_ratio_pct THEN thd_u_c_pct END AS thd_u_c_pct,
    -- The three currents of a three-wire point add up to 0, so that their magnitudes give the negative sequence as line voltages do.
    TRY_CAST(
        coalesce(
            CASE WHEN i2_a >= 0 THEN i2_a END,
            CASE WHEN wiring = '3P3W' AND i_a_a > 0 AND i_b_a > 0 AND i_c_a > 0 THEN
                TRY_CAST(
                    sqrt(
                        (i_a_a * i_a_a + i_b_a * i_b_a + i_c_a * i_c_a) / 3
                            / (1 + power(voltage_unbalance_line_pct(i_a_a, i_b_a, i_c_a) / 100, 2))
                    ) * voltage_unbalance_line_pct(i_a_a, i_b_a, i_c_a) / 100 AS DECIMAL(12, 6)
                )
            END
        ) * ct_ratio AS DECIMAL(18, 6)
    ) AS i2_a,
    CASE WHEN pst BETWEEN 0 AND $max_pst THEN pst END AS pst,
    ct_ratio,
    CAST($max_ratio_pct AS DECIMAL(15, 6)) AS max_ratio_pct,
    u_h,
    i_h,
    u_ih
FROM (
    SELECT
        r.meter_id,
        r.ts,
        r.ts - INTERVAL '1 microsecond' AS at,
        p.org_id,
        p.grid,
        p.wiring,
        p.phase_v,
        p.line_v,
        coalesce(p.ct_ratio, 1) AS ct_ratio,
        coalesce(r.pq_flagged, false) AS flagged,
        CASE $flag_policy
            WHEN 'include' THEN false
            WHEN 'exclude_interruption' THEN coalesce(r.pq_flagged, false) AND r.pq_interrupted IS NOT FALSE
            ELSE coalesce(r.pq_flagged, false)
        END AS left_out,
        CASE
            WHEN r.agg_basis IN ('agg_10min_class_a', 'agg_3s_class_a') THEN 3
            WHEN r.agg_basis = 'agg_1min' THEN 2
            ELSE 1
        END AS basis_rank,
        TRY_CAST(TRY_CAST(r.u_a_v AS DECIMAL(12, 6)) * coalesce(p.pt_ratio, 1) AS DECIMAL(18, 6)) AS u_a_v,
        TRY_CAST(TRY_CAST(r.u_b_v AS DECIMAL(12, 6)) * coalesce(p.pt_ratio, 1) AS DECIMAL(18, 6)) AS u_b_v,
        TRY_CAST(TRY_CAST(r.u_c_v AS DECIMAL(12, 6)) * coalesce(p.pt_ratio, 1) AS DECIMAL(18, 6)) AS u_c_v,
        TRY_CAST(TRY_CAST(r.u_ab_v AS DECIMAL(12, 6)) * coalesce(p.pt_ratio, 1) AS DECIMAL(18, 6)) AS u_ab_v,
        TRY_CAST(TRY_CAST(r.u_bc_v AS DECIMAL(12, 6)) * coalesce(p.pt_ratio, 1) AS DECIMAL(18, 6)) AS u_bc_v,
        TRY_CAST(TRY_CAST(r.u_ca_v AS DECIMAL(12, 6)) * coalesce(p.pt_ratio, 1) AS DECIMAL(18, 6)) AS u_ca_v,
        r.ua_deg,
        r.ub_deg,
        r.uc_deg,
        TRY_CAST(r.freq_hz AS DECIMAL(12, 6)) AS freq_hz,
        TRY_CAST(r.u2_u1_pct AS DECIMAL(12, 6)) AS u2_u1_pct,
        TRY_CAST(r.thd_u_a_pct AS DECIMAL(12, 6)) AS thd_u_a_pct,
        TRY_CAST(r.thd_u_b_pct AS DECIMAL(12, 6)) AS thd_u_b_pct,
        TRY_CAST(r.thd_u_c_pct AS DECIMAL(12, 6)) AS thd_u_c_pct,
        r.i_a_a,
        r.i_b_a,
        r.i_c_a,
        TRY_CAST(r.i2_a AS DECIMAL(12, 6)) AS i2_a,
        TRY_CAST(r.pst AS DECIMAL(12, 6)) AS pst,
        r.u_h,
        r.i_h,
        r.u_ih
    FROM meter_readings r
    JOIN pq_points p ON p.meter_id = r.meter_id
) v
