/*---
id          = "an_theft_top"
kind        = "table"
title       = "Meters to be inspected first, of each week"
title_zh    = "每周窃电稽查优先名单"
category    = "anomaly"
entity      = "meter_id"
unit        = "points"
standard    = "internal"
owner       = "analytics"
key         = "place"
description = """
The `meters_max` meters with the highest score of an_theft_score above 0 in each window, in order; among equal scores by
meter. The list for the inspectors: how many of the first of it were thieves says how good the weights are.
"""
params      = { meters_max = 20 }
---*/
SELECT window_start, window_end, place, meter_id, score, signals
FROM (
    SELECT
        window_start,
        window_end,
        meter_id,
        measured AS score,
        signals,
        row_number() OVER (PARTITION BY window_start ORDER BY measured DESC, meter_id) AS place
    FROM an_theft_score
    WHERE measured > 0
) s
WHERE place <= $meters_max
