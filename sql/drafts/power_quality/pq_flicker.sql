/*---
id          = "pq_flicker"
kind        = "alert"
title       = "Long-term flicker severity above 1"
severity    = "warning"
entity      = "meter_id"
standard    = "GB/T 12326-2008"
clause      = "5"
category    = "pq"
unit        = "1"
owner       = "power-quality"
description = """
Long-term flicker severity of each even UTC block of two hours: the cube root of the mean of the cubes of its twelve
short-term values. Fires above `limit`; a value equal to it is inside. Flicker makes light visibly unsteady; its usual
causes are arc furnaces, welders and large motors that start often. The limit 1.0 holds up to 110 kV; above that it is
0.8.
A short-term value is stamped at the end of its 10 minutes; a stamp up to 5 minutes off still finds its place, and of
several in one place the last counts. A block with fewer than twelve values, or with a flagged one (a dip, swell or
interruption fell into it), gives a row without a verdict: it neither opens nor resolves. The standard judges all values
of a week; a firing row is one value that breaks it.
"""
params      = { limit = 1.0 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    plt > $limit AS firing,
    plt AS measured,
    $limit AS limit_high,
    '1' AS unit,
    highest_pst,
    n_pst,
    n_flagged
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(pst) AS n_pst,
        count(*) FILTER (WHERE flagged) AS n_flagged,
        max(pst) AS highest_pst,
        CASE WHEN NOT bool_or(flagged) THEN TRY_CAST(plt(CAST(pst AS DOUBLE)) AS DECIMAL(12, 6)) END AS plt
    FROM TUMBLE(
        (
            SELECT
                meter_id,
                window_start AS at,
                bool_or(flagged) AS flagged,
                last_value(pst ORDER BY at) AS pst
            FROM TUMBLE(
                (
                    SELECT
                        meter_id,
                        -- The middle of the interval that a stamp at its end closes.
                        ts - INTERVAL '5 minutes' AS at,
                        coalesce(pq_flagged, false) AS flagged,
                        TRY_CAST(pst AS DECIMAL(12, 6)) AS pst
                    FROM meter_readings
                    WHERE TRY_CAST(pst AS DECIMAL(12, 6)) >= 0
                ),
                at,
                INTERVAL '10 minutes'
            )
            GROUP BY meter_id, window_start, window_end
        ),
        at,
        INTERVAL '2 hours'
    )
    GROUP BY meter_id, window_start, window_end
) b
