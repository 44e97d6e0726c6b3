/*---
id          = "pq_event_months"
kind        = "table"
title       = "Dips, swells and interruptions of a month by cell"
title_zh    = "电压事件月统计(按单元格)"
standard    = "EN 50160:2010"
clause      = "4.3, 5.3"
category    = "pq"
entity      = ["meter_id", "kind", "cell"]
unit        = "1"
owner       = "power-quality"
description = """
How many events of pq_supply_events fell into each cell of residual voltage and duration in a calendar month (Asia/Shanghai); those
within a minute of the one before count with it (`n_events` leaves them out, `n_recorded` does not). Events that fit no cell are under
`none`. A year is the sum of its months. A month without events has no row: whether the device was alive is not seen here.
"""
---*/
SELECT
    meter_id,
    kind,
    coalesce(cell, 'none') AS cell,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_month,
    count(*) FILTER (WHERE counted) AS n_events,
    count(*) AS n_recorded,
    min(residual_pct) AS lowest_residual_pct,
    max(residual_pct) AS highest_residual_pct,
    max(duration_ms) AS longest_ms
FROM TUMBLE(pq_supply_events, start_ts, INTERVAL '1 month', 'Asia/Shanghai')
GROUP BY meter_id, kind, coalesce(cell, 'none'), window_start, window_end
