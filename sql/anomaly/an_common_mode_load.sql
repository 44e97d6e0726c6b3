/*---
id          = "an_common_mode_load"
kind        = "alert"
title       = "Load of many meters of a feeder turns unusual at once"
title_zh    = "同馈线多表负荷同时异常（共因）"
severity    = "warning"
entity      = "feeder"
category    = "anomaly"
unit        = "meters"
standard    = "internal"
owner       = "analytics"
description = """
Counts, in each quarter of an hour, the customers of a feeder whose load an_load_hampel finds high or low, and fires when
they are at least `min_meters` and more than `min_share_pct` of those that it judged: a switched feeder, a cut, a holiday,
a wrong time, or a head end that delivers wrong values, and none of the customers. Look here before the single meters.
Resolves with the next quarter of an hour that is within. Not seen: customers for which the single rule has too few values.
"""
[params]
min_meters    = 5
min_share_pct = 20.0
---*/
SELECT
    feeder,
    window_start,
    window_end,
    unusual >= $min_meters AND unusual * 100 > judged * $min_share_pct AS firing,
    unusual AS measured,
    $min_meters AS limit_high,
    'meters' AS unit,
    high,
    low,
    judged,
    CAST(CAST(unusual AS DECIMAL(12, 6)) * 100 / judged AS DECIMAL(12, 4)) AS share_pct
FROM (
    SELECT
        m.feeder,
        h.window_start,
        h.window_end,
        count(*) AS judged,
        count(*) FILTER (WHERE h.firing) AS unusual,
        count(*) FILTER (WHERE h.verdict = 'high') AS high,
        count(*) FILTER (WHERE h.verdict = 'low') AS low
    FROM an_load_hampel h
    JOIN meters m ON m.meter_id = h.meter_id
    WHERE h.firing IS NOT NULL AND m.kind = 'customer' AND m.feeder <> ''
    GROUP BY m.feeder, h.window_start, h.window_end
) f
