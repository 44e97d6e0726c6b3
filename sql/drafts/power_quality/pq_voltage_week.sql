/*---
id          = "pq_voltage_week"
kind        = "table"
title       = "Week of 10-minute voltages of each phase against EN 50160"
standard    = "EN 50160:2010"
clause      = "4.2.2"
category    = "pq"
entity      = "meter_id"
unit        = "%"
owner       = "power-quality"
description = """
One row per meter, phase and week (from Monday 00:00 UTC). The value of a 10-minute interval is the root of the mean of
squares of its readings; a reading belongs to the interval that it closes. Supply complies if at least `share_pct` of the
valid intervals lie within `inner_pct` of nominal and all of them within `outer_low_pct` to `outer_high_pct`. A value
equal to a limit is inside. Intervals with a flagged reading (a dip, swell or interruption fell into it) are counted as
flagged and judged no further.
`coverage_pct` is the valid share of the 1008 intervals of a week; below `min_coverage_pct` the verdict is
`insufficient_data`, else `pass` or `fail`. `basis` is `class_a` if every reading of the valid intervals is a 10-minute
class A aggregate, else `indicative`: then the verdict is no statement about the standard.
The limits are those of low voltage; for medium voltage copy the rule with 99 % and +15/-15 %. Only phase voltages are
judged: a meter of a three-wire connection, or one that is not in `meters`, has no row.
"""
params      = { inner_pct = 10.0, share_pct = 95.0, outer_high_pct = 10.0, outer_low_pct = -15.0, min_coverage_pct = 90.0 }
---*/
SELECT
    meter_id,
    phase,
    window_start,
    window_end,
    n_valid,
    n_flagged,
    1008 - n_valid - n_flagged AS n_missing,
    round(100 * CAST(n_valid AS DOUBLE) / 1008, 6) AS coverage_pct,
    n_inner,
    n_outer,
    round(100 * CAST(n_inner AS DOUBLE) / nullif(n_valid, 0), 6) AS inner_share_pct,
    round(100 * CAST(n_outer AS DOUBLE) / nullif(n_valid, 0), 6) AS outer_share_pct,
    lowest_v,
    highest_v,
    CASE
        WHEN n_valid * 100 < $min_coverage_pct * 1008 THEN 'insufficient_data'
        WHEN n_inner * 100 >= $share_pct * n_valid AND n_outer = n_valid THEN 'pass'
        ELSE 'fail'
    END AS verdict,
    CASE WHEN class_a THEN 'class_a' ELSE 'indicative' END AS basis
FROM (
    SELECT
        meter_id,
        phase,
        window_start,
        window_end,
        count(*) FILTER (WHERE NOT flagged) AS n_valid,
        count(*) FILTER (WHERE flagged) AS n_flagged,
        count(*) FILTER (
            WHERE NOT flagged
                AND rms_v >= nominal_v * (1 - $inner_pct / 100)
                AND rms_v <= nominal_v * (1 + $inner_pct / 100)
        ) AS n_inner,
        count(*) FILTER (
            WHERE NOT flagged
                AND rms_v >= nominal_v * (1 + $outer_low_pct / 100)
                AND rms_v <= nominal_v * (1 + $outer_high_pct / 100)
        ) AS n_outer,
        min(rms_v) FILTER (WHERE NOT flagged) AS lowest_v,
        max(rms_v) FILTER (WHERE NOT flagged) AS highest_v,
        coalesce(bool_and(class_a) FILTER (WHERE NOT flagged), false) AS class_a
    FROM TUMBLE(
        (
            SELECT i.meter_id, i.at, i.flagged, i.class_a, i.phase, i.rms_v, CAST(m.nominal_v AS DECIMAL(9, 3)) AS nominal_v
            FROM (
                SELECT
                    meter_id,
                    window_start AS at,
                    window_end,
                    flagged,
                    class_a,
                    unnest(['a', 'b', 'c']) AS phase,
                    unnest([rms_a_v, rms_b_v, rms_c_v]) AS rms_v
                FROM (
                    SELECT
                        meter_id,
                        window_start,
                        window_end,
                        bool_or(flagged) AS flagged,
                        bool_and(class_a) AS class_a,
                        TRY_CAST(rms_mean(a_v) AS DECIMAL(12, 6)) AS rms_a_v,
                        TRY_CAST(rms_mean(b_v) AS DECIMAL(12, 6)) AS rms_b_v,
                        TRY_CAST(rms_mean(c_v) AS DECIMAL(12, 6)) AS rms_c_v
                    FROM TUMBLE(
                        (
                            SELECT
                                meter_id,
                                -- A reading stamped 00:10 closes the interval from 00:00 to 00:10.
                                ts - INTERVAL '1 microsecond' AS at,
                                coalesce(pq_flagged, false) AS flagged,
                                coalesce(agg_basis = 'agg_10min_class_a', false) AS class_a,
                                CAST(TRY_CAST(u_a_v AS DECIMAL(12, 6)) AS DOUBLE) AS a_v,
                                CAST(TRY_CAST(u_b_v AS DECIMAL(12, 6)) AS DOUBLE) AS b_v,
                                CAST(TRY_CAST(u_c_v AS DECIMAL(12, 6)) AS DOUBLE) AS c_v
                            FROM meter_readings
                            WHERE u_a_v IS NOT NULL OR u_b_v IS NOT NULL OR u_c_v IS NOT NULL
                        ),
                        at,
                        INTERVAL '10 minutes'
                    )
                    GROUP BY meter_id, window_start, window_end
                ) t
            ) i
            JOIN meters m ON m.meter_id = i.meter_id
            WHERE i.rms_v IS NOT NULL AND m.nominal_v IS NOT NULL
        ),
        at,
        INTERVAL '7 days',
        TIMESTAMP '1970-01-05T00:00:00Z'
    )
    GROUP BY meter_id, phase, window_start, window_end
) w
