/*---
id          = "pq_intervals"
kind        = "view"
title       = "Values of 10-minute intervals, root of the mean of squares"
title_zh    = "10分钟间隔值(方均根)"
standard    = "IEC 61000-4-30:2015"
clause      = "4.4, 4.5"
category    = "pq"
owner       = "power-quality"
description = """
The values of pq_samples joined to intervals of ten minutes (UTC): root of the mean of squares, never the arithmetic mean. An
interval is flagged, or left out, if any of its readings is. Frequency has no interval of this length and is not here.
"""
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    quantity,
    phase,
    harmonic_order,
    base,
    line_v,
    -- A dip marks all quantities of the interval, also those that came with other readings.
    bool_or(bool_or(flagged)) OVER w AS flagged,
    bool_or(bool_or(left_out)) OVER w AS left_out,
    max(flag_policy) AS flag_policy,
    min(basis_rank) AS basis_rank,
    TRY_CAST(rms_mean(CAST(value AS DOUBLE)) AS DECIMAL(18, 6)) AS value,
    max(value) AS highest
FROM TUMBLE(pq_samples, at, INTERVAL '10 minutes')
WHERE quantity <> 'frequency'
GROUP BY meter_id, window_start, window_end, quantity, phase, harmonic_order, base, line_v
WINDOW w AS (PARTITION BY meter_id, window_start, window_end)
