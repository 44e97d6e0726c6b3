/*---
id          = "pq_load"
kind        = "alert"
title       = "Transformer heavily loaded or overloaded for two hours"
severity    = "warning"
entity      = "meter_id"
standard    = "internal"
category    = "load"
unit        = "%"
owner       = "distribution"
description = """
Load of a transformer: apparent power of the 15-minute means of active and reactive power over the rated capacity, which
is `limit_high` of the row of `device_limits` with the meter's id and metric `s_kva` that is valid at the end of the
window. Meters without such a row are not judged. Fires once eight windows in a row are above `heavy_pct` (warning;
critical if all eight are above `overload_pct`), and at once above `instant_pct` (critical). A value equal to a limit is
inside. Power fed back counts as load as well. While the load is high but not yet for two hours, the row says nothing
(`firing` is null), so an open alert stays; the first window at or below `heavy_pct` resolves it. A missing window begins
the two hours anew.
The means must be those of the primary side (current and voltage ratios applied). It cannot see oil or winding
temperature, nor one phase above its share: pq_current_unbalance looks at that.
"""
params      = { heavy_pct = 80.0, overload_pct = 100.0, instant_pct = 130.0 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CASE
        WHEN load_pct > $instant_pct OR heavy_windows = 8 THEN true
        WHEN load_pct <= $heavy_pct THEN false
    END AS firing,
    CASE WHEN load_pct > $instant_pct OR overload_windows = 8 THEN 'critical' ELSE 'warning' END AS severity,
    load_pct AS measured,
    $heavy_pct AS limit_high,
    '%' AS unit,
    apparent_kva,
    capacity_kva,
    heavy_windows,
    overload_windows
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        apparent_kva,
        capacity_kva,
        load_pct,
        -- The window itself and those of the 105 minutes before it: eight windows of a quarter of an hour.
        sum(CASE WHEN load_pct > $heavy_pct THEN 1 ELSE 0 END) OVER w AS heavy_windows,
        sum(CASE WHEN load_pct > $overload_pct THEN 1 ELSE 0 END) OVER w AS overload_windows
    FROM (
        SELECT
            s.meter_id,
            s.window_start,
            s.window_end,
            TRY_CAST(s.apparent_kva AS DECIMAL(18, 6)) AS apparent_kva,
            CAST(l.limit_high AS DOUBLE) AS capacity_kva,
            TRY_CAST(100 * s.apparent_kva / CAST(l.limit_high AS DOUBLE) AS DECIMAL(18, 6)) AS load_pct
        FROM (
            SELECT
                meter_id,
                window_start,
                window_end,
                sqrt(mean_kw * mean_kw + mean_kvar * mean_kvar) AS apparent_kva
            FROM (
                SELECT
                    meter_id,
                    window_start,
                    window_end,
                    CAST(avg(TRY_CAST(p_kw AS DECIMAL(15, 6))) AS DOUBLE) AS mean_kw,
                    CAST(avg(TRY_CAST(q_kvar AS DECIMAL(15, 6))) AS DOUBLE) AS mean_kvar
                FROM TUMBLE(meter_readings, ts, INTERVAL '15 minutes')
                WHERE p_kw IS NOT NULL AND q_kvar IS NOT NULL
                GROUP BY meter_id, window_start, window_end
            ) m
        ) s
        JOIN device_limits l ON l.device_id = s.meter_id AND l.metric_name = 's_kva'
        WHERE CAST(l.limit_high AS DOUBLE) > 0
    ) p
    WHERE load_pct IS NOT NULL
    WINDOW w AS (PARTITION BY meter_id ORDER BY window_start RANGE INTERVAL '105 minutes' PRECEDING)
) r
