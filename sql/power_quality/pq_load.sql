/*---
id          = "pq_load"
kind        = "alert"
title       = "Transformer heavily loaded or overloaded for two hours"
title_zh    = "变压器重载或过载"
severity    = "warning"
entity      = "meter_id"
standard    = "internal"
category    = "load"
unit        = "%"
owner       = "distribution"
description = """
Load of a transformer by pq_load_windows. Fires once eight windows in a row are above `heavy_pct` (warning; critical if all of them are
above `overload_pct`), and at once above `instant_pct` (critical). A value equal to a limit is inside. Power fed back counts as load as
well. While the load is high but not yet for two hours, the row says nothing (`firing` is null), so an open alert stays; the first
window at or below `heavy_pct` resolves it. A missing window begins the two hours anew. Long overload is what makes a transformer a
candidate for replacement: look at the table of alerts for how long they last. It cannot see oil or winding temperature.
The limits are those of distribution practice, not of a printed standard. Points without `sn_kva` in `pq_points` are not judged.
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
    max_phase_pct,
    direction,
    basis,
    heavy_windows,
    overload_windows
FROM (
    SELECT
        *,
        -- The window itself and those of the 105 minutes before it: eight windows of a quarter of an hour.
        sum(CASE WHEN load_pct > $heavy_pct THEN 1 ELSE 0 END) OVER w AS heavy_windows,
        sum(CASE WHEN load_pct > $overload_pct THEN 1 ELSE 0 END) OVER w AS overload_windows
    FROM pq_load_windows
    WHERE load_pct IS NOT NULL
    WINDOW w AS (PARTITION BY meter_id ORDER BY window_start RANGE INTERVAL '105 minutes' PRECEDING)
) r
