/*---
id          = "pq_rapid_changes_days"
kind        = "table"
title       = "Rapid voltage changes of each point and day"
title_zh    = "快速电压变动日统计"
standard    = "IEC 61000-4-30:2015"
clause      = "5.11"
category    = "pq"
entity      = "meter_id"
unit        = "1"
owner       = "power-quality"
description = """
Number of rapid voltage changes of a local day (UTC+8), the largest steady-state and the largest maximum change, and how many exceed the
indicative value of EN 50160 (`rapid_voltage_change` of scheme `EN`: 5 % at low, 4 % at medium voltage; a value equal to it is inside).
What a change is (threshold 1 to 6 %, against the second before) is decided by the device. A change that is part of a dip or swell is
discarded, as the standard says: one that begins within a second of the start of a dip, swell or interruption of the point. The
values are indicative, so there is no verdict. A day without changes has no row.
"""
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_date,
    count(*) AS n_changes,
    count(*) FILTER (WHERE delta_max_pct > limit_high) AS n_above_indicative,
    max(limit_high) AS indicative_pct,
    max(delta_ss_pct) AS largest_ss_pct,
    max(delta_max_pct) AS largest_max_pct,
    max(standard) AS standard,
    max(clause) AS clause
FROM TUMBLE(
    (
        SELECT c.meter_id, c.start_ts, c.delta_ss_pct, c.delta_max_pct, l.limit_high, l.standard, l.clause
        FROM pq_event_rows c
        LEFT JOIN pq_limits l ON l.scheme = 'EN' AND l.quantity = 'rapid_voltage_change' AND c.line_v > l.line_v_above AND c.line_v <= l.line_v_upto
        WHERE c.direction = 'change'
            AND NOT EXISTS (
                SELECT 1
                FROM pq_event_rows e
                WHERE e.meter_id = c.meter_id AND e.direction <> 'change'
                    AND e.start_ts BETWEEN c.start_ts - INTERVAL '1 second' AND c.start_ts + INTERVAL '1 second'
            )
    ),
    start_ts,
    INTERVAL '1 day',
    TIMESTAMP '1970-01-01T16:00:00Z'
)
GROUP BY meter_id, window_start, window_end
