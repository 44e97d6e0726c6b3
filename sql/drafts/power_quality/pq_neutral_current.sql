/*---
id          = "pq_neutral_current"
kind        = "alert"
title       = "Neutral current above 25 % of the rated current for two hours"
severity    = "warning"
entity      = "meter_id"
standard    = "internal"
category    = "pq"
unit        = "A"
owner       = "power-quality"
description = """
15-minute mean of the neutral current against `limit_pct` of the rated current of the transformer, which is its rated
capacity over the square root of 3 and `line_v`. The capacity is `limit_high` of the row of `device_limits` with the
meter's id and metric `s_kva`, valid at the end of the window; meters without such a row are not judged. Fires once eight
windows in a row are above the limit; a value equal to it is inside. Neutral current comes from unequal phases and from
harmonics of orders divisible by 3; it heats the neutral and shifts the phase voltages.
While the current is too high but not yet for two hours, `firing` is null and an open alert stays; the first window at or
below the limit resolves it. A missing window begins the two hours anew. Usual limits are 25 % for Yyn0 and 40 % for
Dyn11, taken from practice; the vector group is in no table, so choose the limit here. A reading without `i_n_a` is not
judged.
"""
params      = { limit_pct = 25.0, line_v = 400.0 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CASE WHEN high_windows = 8 THEN true WHEN mean_a <= limit_a THEN false END AS firing,
    mean_a AS measured,
    limit_a AS limit_high,
    'A' AS unit,
    round(100 * CAST(mean_a AS DOUBLE) / rated_a, 6) AS of_rated_pct,
    high_windows
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        mean_a,
        limit_a,
        rated_a,
        -- The window itself and those of the 105 minutes before it: eight windows of a quarter of an hour.
        sum(CASE WHEN mean_a > limit_a THEN 1 ELSE 0 END) OVER (
            PARTITION BY meter_id ORDER BY window_start RANGE INTERVAL '105 minutes' PRECEDING
        ) AS high_windows
    FROM (
        SELECT
            n.meter_id,
            n.window_start,
            n.window_end,
            n.mean_a,
            1000 * CAST(l.limit_high AS DOUBLE) / (sqrt(3.0) * $line_v) AS rated_a,
            TRY_CAST(
                1000 * CAST(l.limit_high AS DOUBLE) / (sqrt(3.0) * $line_v) * $limit_pct / 100 AS DECIMAL(12, 6)
            ) AS limit_a
        FROM (
            SELECT
                meter_id,
                window_start,
                window_end,
                CAST(avg(TRY_CAST(i_n_a AS DECIMAL(12, 6))) AS DECIMAL(12, 6)) AS mean_a
            FROM TUMBLE(meter_readings, ts, INTERVAL '15 minutes')
            WHERE TRY_CAST(i_n_a AS DECIMAL(12, 6)) IS NOT NULL
            GROUP BY meter_id, window_start, window_end
        ) n
        JOIN device_limits l ON l.device_id = n.meter_id AND l.metric_name = 's_kva'
        WHERE CAST(l.limit_high AS DOUBLE) > 0
    ) p
) r
