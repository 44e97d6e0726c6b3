/*---
id          = "pq_unbalance_week"
kind        = "table"
title       = "Week of 10-minute voltage unbalance against GB/T 15543 and EN 50160"
standard    = "GB/T 15543-2008"
clause      = "4, 6"
category    = "pq"
entity      = "meter_id"
unit        = "%"
owner       = "power-quality"
description = """
One row per three-phase point and week (from Monday 00:00 UTC). The unbalance of a reading is its negative over its
positive sequence: from the phasors, else from the three line voltages, else as the meter reports it. Phase voltages
without angles do not give it. The value of a 10-minute interval is the root of the mean of squares; a reading belongs to
the interval that it closes, and an interval with a flagged reading is counted as flagged and judged no further.
`verdict_gb`: the 95 % value (without the largest 5 % of the values, the largest) is at most `limit_pct` and the largest
interval at most `limit_short_pct`. `verdict_en`: at least `share_pct` of the intervals are at most `limit_pct`. Both are
`pass`, `fail` or, below `min_coverage_pct` valid intervals of 1008, `insufficient_data`. A value equal to a limit is
inside. The limits are those of a point of common coupling; a single user has 1.3 % and 2.6 %. Readings that are not class
A aggregates give an indication, and the largest interval may hide a shorter peak: `highest_reading_pct` shows one.
"""
params      = { limit_pct = 2.0, limit_short_pct = 4.0, share_pct = 95.0, min_coverage_pct = 90.0 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    n_valid,
    n_flagged,
    1008 - n_valid - n_flagged AS n_missing,
    round(100 * CAST(n_valid AS DOUBLE) / 1008, 6) AS coverage_pct,
    p95_gb_pct,
    highest_pct,
    highest_reading_pct,
    round(100 * CAST(n_inside AS DOUBLE) / nullif(n_valid, 0), 6) AS inside_share_pct,
    CASE
        WHEN n_valid * 100 < $min_coverage_pct * 1008 THEN 'insufficient_data'
        WHEN p95_gb_pct <= $limit_pct AND highest_pct <= $limit_short_pct THEN 'pass'
        ELSE 'fail'
    END AS verdict_gb,
    CASE
        WHEN n_valid * 100 < $min_coverage_pct * 1008 THEN 'insufficient_data'
        WHEN n_inside * 100 >= $share_pct * n_valid THEN 'pass'
        ELSE 'fail'
    END AS verdict_en
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(*) FILTER (WHERE NOT flagged) AS n_valid,
        count(*) FILTER (WHERE flagged) AS n_flagged,
        count(*) FILTER (WHERE NOT flagged AND rms_pct <= $limit_pct) AS n_inside,
        TRY_CAST(gb_percentile_95(CASE WHEN NOT flagged THEN CAST(rms_pct AS DOUBLE) END) AS DECIMAL(12, 6)) AS p95_gb_pct,
        max(rms_pct) FILTER (WHERE NOT flagged) AS highest_pct,
        max(highest_pct) FILTER (WHERE NOT flagged) AS highest_reading_pct
    FROM TUMBLE(
        (
            SELECT
                meter_id,
                window_start AS at,
                bool_or(flagged) AS flagged,
                TRY_CAST(rms_mean(CAST(unbalance_pct AS DOUBLE)) AS DECIMAL(12, 6)) AS rms_pct,
                max(unbalance_pct) AS highest_pct
            FROM TUMBLE(
                (
                    SELECT
                        meter_id,
                        -- A reading stamped 00:10 closes the interval from 00:00 to 00:10.
                        ts - INTERVAL '1 microsecond' AS at,
                        coalesce(pq_flagged, false) AS flagged,
                        coalesce(
                            CASE WHEN u_a_v > 0 AND u_b_v > 0 AND u_c_v > 0 THEN
                                TRY_CAST(
                                    voltage_unbalance_pct(u_a_v, ua_deg, u_b_v, ub_deg, u_c_v, uc_deg) AS DECIMAL(12, 6)
                                )
                            END,
                            CASE WHEN u_ab_v > 0 AND u_bc_v > 0 AND u_ca_v > 0 THEN
                                TRY_CAST(voltage_unbalance_line_pct(u_ab_v, u_bc_v, u_ca_v) AS DECIMAL(12, 6))
                            END,
                            TRY_CAST(u2_u1_pct AS DECIMAL(12, 6))
                        ) AS unbalance_pct
                    FROM meter_readings
                ),
                at,
                INTERVAL '10 minutes'
            )
            WHERE unbalance_pct IS NOT NULL
            GROUP BY meter_id, window_start, window_end
        ),
        at,
        INTERVAL '7 days',
        TIMESTAMP '1970-01-05T00:00:00Z'
    )
    GROUP BY meter_id, window_start, window_end
) w
