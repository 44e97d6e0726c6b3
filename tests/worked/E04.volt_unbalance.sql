-- GB/T 15543-2008, annex A: symmetrical components of three phasors, and the negative sequence from the line voltages alone.
-- The spread of the magnitudes ignores the angles and is not the standard's unbalance.
WITH phasors AS (
    SELECT
        n,
        phasors_v_deg[1][1] AS ua, phasors_v_deg[1][2] AS da,
        phasors_v_deg[2][1] AS ub, phasors_v_deg[2][2] AS db,
        phasors_v_deg[3][1] AS uc, phasors_v_deg[3][2] AS dc
    FROM example
),
sequences AS (
    SELECT
        *,
        sqrt(power(ua * cos(radians(da)) + ub * cos(radians(db + 120)) + uc * cos(radians(dc + 240)), 2)
            + power(ua * sin(radians(da)) + ub * sin(radians(db + 120)) + uc * sin(radians(dc + 240)), 2)) / 3 AS u1,
        voltage_unbalance_pct(ua, da, ub, db, uc, dc) AS eps2,
        zero_sequence_unbalance_pct(ua, da, ub, db, uc, dc) AS eps0,
        sqrt(ua * ua + ub * ub - 2 * ua * ub * cos(radians(da - db))) AS uab,
        sqrt(ub * ub + uc * uc - 2 * ub * uc * cos(radians(db - dc))) AS ubc,
        sqrt(uc * uc + ua * ua - 2 * uc * ua * cos(radians(dc - da))) AS uca,
        (ua + ub + uc) / 3 AS mean
    FROM phasors
)
SELECT
    n,
    round(u1, 6) AS u1_v,
    round(u1 * eps2 / 100, 6) AS u2_v,
    round(u1 * eps0 / 100, 6) AS u0_v,
    round(eps2, 6) AS eps2_pct,
    round(eps0, 6) AS eps0_pct,
    [round(uab, 6), round(ubc, 6), round(uca, 6)] AS line_v,
    round((power(uab, 4) + power(ubc, 4) + power(uca, 4)) / power(uab * uab + ubc * ubc + uca * uca, 2), 6) AS "L",
    round(voltage_unbalance_line_pct(uab, ubc, uca), 6) AS eps2_from_line_pct,
    round(100 * greatest(abs(ua - mean), abs(ub - mean), abs(uc - mean)) / mean, 6) AS "phase_mag_maxdev_pct(NOT the standard)"
FROM sequences
