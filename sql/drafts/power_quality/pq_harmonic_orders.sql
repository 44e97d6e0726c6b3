/*---
id          = "pq_harmonic_orders"
kind        = "table"
title       = "Week of 10-minute harmonic voltages of each order against EN 50160"
standard    = "EN 50160:2010"
clause      = "4.2.5"
category    = "pq"
entity      = "meter_id"
unit        = "%"
owner       = "power-quality"
description = """
One row per meter, order from 2 to 25 and week (from Monday 00:00 UTC), from the list `u_h` (percent of the fundamental,
its first element is order 2). The value of a 10-minute interval is the root of the mean of squares; a reading belongs to
the interval that it closes, and an interval with a flagged reading is counted as flagged and judged no further. The order
complies if at least `share_pct` of its valid intervals are at most its limit; a value equal to it is inside. `p95_pct` is
the value that 95 % of the intervals do not exceed (nearest rank). Below `min_coverage_pct` valid intervals of 1008 the
verdict is `insufficient_data`, else `pass` or `fail`.
Limits in %: 2: 2, 3: 5, 4: 1, 5: 6, even from 6: 0.5, 7: 5, 9: 1.5, 11: 3.5, 13: 3, 15 and 21: 0.5, 17: 2, 19, 23 and 25:
1.5. Orders above 25 have none. The list carries no phase: whether it is the worst one depends on the meter.
"""
params      = { share_pct = 95.0, min_coverage_pct = 90.0 }
---*/
SELECT
    meter_id,
    harmonic_order,
    window_start,
    window_end,
    n_valid,
    n_flagged,
    round(100 * CAST(n_valid AS DOUBLE) / 1008, 6) AS coverage_pct,
    limit_pct,
    n_inside,
    round(100 * CAST(n_inside AS DOUBLE) / nullif(n_valid, 0), 6) AS inside_share_pct,
    p95_pct,
    highest_pct,
    CASE
        WHEN n_valid * 100 < $min_coverage_pct * 1008 THEN 'insufficient_data'
        WHEN n_inside * 100 >= $share_pct * n_valid THEN 'pass'
        ELSE 'fail'
    END AS verdict
FROM (
    SELECT
        meter_id,
        harmonic_order,
        limit_pct,
        window_start,
        window_end,
        count(*) FILTER (WHERE NOT flagged) AS n_valid,
        count(*) FILTER (WHERE flagged) AS n_flagged,
        count(*) FILTER (WHERE NOT flagged AND rms_pct <= limit_pct) AS n_inside,
        TRY_CAST(
            nearest_rank_percentile(CASE WHEN NOT flagged THEN CAST(rms_pct AS DOUBLE) END, 0.95) AS DECIMAL(9, 4)
        ) AS p95_pct,
        max(rms_pct) FILTER (WHERE NOT flagged) AS highest_pct
    FROM TUMBLE(
        (
            SELECT
                meter_id,
                window_start AS at,
                harmonic_order,
                CASE
                    WHEN harmonic_order = 2 THEN 2.0
                    WHEN harmonic_order = 3 THEN 5.0
                    WHEN harmonic_order = 4 THEN 1.0
                    WHEN harmonic_order % 2 = 0 THEN 0.5
                    WHEN harmonic_order = 5 THEN 6.0
                    WHEN harmonic_order = 7 THEN 5.0
                    WHEN harmonic_order = 9 THEN 1.5
                    WHEN harmonic_order = 11 THEN 3.5
                    WHEN harmonic_order = 13 THEN 3.0
                    WHEN harmonic_order = 17 THEN 2.0
                    WHEN harmonic_order IN (15, 21) THEN 0.5
                    ELSE 1.5
                END AS limit_pct,
                bool_or(flagged) AS flagged,
                -- The list holds 32-bit floats: 4 decimals are what they can tell apart here.
                TRY_CAST(rms_mean(CAST(TRY_CAST(ratio_pct AS DECIMAL(9, 4)) AS DOUBLE)) AS DECIMAL(9, 4)) AS rms_pct
            FROM TUMBLE(
                (
                    SELECT
                        meter_id,
                        -- A reading stamped 00:10 closes the interval from 00:00 to 00:10.
                        ts - INTERVAL '1 microsecond' AS at,
                        coalesce(pq_flagged, false) AS flagged,
                        unnest(range(2, 26)) AS harmonic_order,
                        unnest(array_slice(u_h, 1, 24)) AS ratio_pct
                    FROM meter_readings
                    WHERE cardinality(u_h) > 0
                ),
                at,
                INTERVAL '10 minutes'
            )
            WHERE TRY_CAST(ratio_pct AS DECIMAL(9, 4)) IS NOT NULL
            GROUP BY meter_id, harmonic_order, window_start, window_end
        ),
        at,
        INTERVAL '7 days',
        TIMESTAMP '1970-01-05T00:00:00Z'
    )
    GROUP BY meter_id, harmonic_order, limit_pct, window_start, window_end
) w
