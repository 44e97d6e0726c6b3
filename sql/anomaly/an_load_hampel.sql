/*---
id          = "an_load_hampel"
kind        = "alert"
title       = "Load of a meter far off its last day"
title_zh    = "负荷偏离近一日中位数（Hampel）"
severity    = "info"
entity      = "meter_id"
category    = "anomaly"
unit        = "sigma"
standard    = "internal"
owner       = "analytics"
description = """
Compares each 15-minute mean power with the median of the last `values` of the meter (96 are a day), itself among them, in
robust standard deviations (1.4826 times the median distance from the median), and fires beyond `max_z` on either side
(the identifier of F. Hampel). One wild value does not move the median, so it cannot hide itself. A mean up to `min_kw`
does not count as high. Until `min_values` are there the verdict is `insufficient_data`. Kept are `values` numbers for each
meter. Not seen: a change that lasts longer than half of the values, as it becomes the median; a load that was the same
for more than half of them, where the distance is 0; and usual peaks of a day, for which there is an_load_season.
Single households jump: on the 61 meters of the sample feeder 6 opens about three alerts a meter and day, so raise it there,
or let only an_common_mode_load read this rule.
"""
[params]
values     = 96
min_values = 24
max_z      = 6.0
min_kw     = 1.0
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CASE WHEN n >= $min_values THEN z < -$max_z OR (z > $max_z AND mean_kw > $min_kw) END AS firing,
    CASE
        WHEN n < $min_values THEN 'insufficient_data'
        WHEN z < -$max_z THEN 'low'
        WHEN z > $max_z AND mean_kw > $min_kw THEN 'high'
        ELSE 'usual'
    END AS verdict,
    z AS measured,
    -$max_z AS limit_low,
    $max_z AS limit_high,
    'sigma' AS unit,
    mean_kw,
    samples,
    least(n, $values) AS compared_with
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        mean_kw,
        samples,
        round(hampel_z(CAST(mean_kw AS DOUBLE), $values) OVER w, 6) AS z,
        row_number() OVER w AS n
    FROM an_load_quarters
    WINDOW w AS (PARTITION BY meter_id ORDER BY window_start)
) l
