/*---
id          = "pq_supply_events"
kind        = "table"
title       = "Voltage dips, swells and interruptions of a point, phases joined"
title_zh    = "电压暂降、暂升与短时中断事件"
standard    = "EN 50160:2010"
clause      = "4.3, 5.3"
category    = "pq"
entity      = "meter_id"
unit        = "%"
owner       = "power-quality"
description = """
One row per event of a point: rows of pq_event_rows that overlap and begin within a minute of the first are its phases. It lasts from
the first start to the last end; `residual_pct` is the lowest of a dip, the highest of a swell. It is an `interruption` only if all
phases of the point were without voltage at once: the loss of one phase of three is a `dip`, however deep. `cell` is that of
`pq_event_classes` (of EN 50160: rows A 80-90, B 70-80, C 40-70, D 5-40, X below 5 % residual voltage, columns 1 to 5 by duration up to
0.2, 0.5, 1, 5 and 60 s; swells S from 120, T from 110 %; interruptions short up to 3 min, else long); it is NULL for what fits none,
such as an undervoltage of more than a minute, or while the event lasts. `counted` is false for an event that begins within a minute
of the one before: reclosing is one event for statistics. Events are recorded, the standard sets no limit to their number. Where
devices report thresholds and durations only, `residual_pct` is NULL and there is no cell.
"""
---*/
WITH joined AS (
    SELECT
        meter_id, start_ts, direction, feeder, customers, line_v, phases, n_rows, in_a, in_b, in_c, n_lost_a, n_lost_b, n_lost_c,
        lost_from_ms, lost_to_ms, lowest_pct, highest_pct, from_ms, to_ms, n_ended
    FROM pq_event_spans MATCH_RECOGNIZE (
        PARTITION BY meter_id, direction ORDER BY start_ts
        MEASURES
            first(start_ts) AS start_ts, first(feeder) AS feeder, first(customers) AS customers, first(line_v) AS line_v,
            first(phases) AS phases, count(*) AS n_rows, max(on_a) AS in_a, max(on_b) AS in_b, max(on_c) AS in_c,
            max(lost_a) AS n_lost_a, max(lost_b) AS n_lost_b, max(lost_c) AS n_lost_c,
            max(lost_start_ms) AS lost_from_ms, min(lost_end_ms) AS lost_to_ms,
            min(residual_pct) AS lowest_pct, max(residual_pct) AS highest_pct,
            min(start_ms) AS from_ms, max(end_ms) AS to_ms, count(end_ms) AS n_ended
        PATTERN (head more*)
        DEFINE more AS overlaps AND more.start_ts <= first(start_ts) + INTERVAL '1 minute'
    )
),
kinds AS (
    SELECT
        *,
        CASE
            WHEN direction = 'over' THEN 'swell'
            WHEN phases = 1 AND n_lost_a + n_lost_b + n_lost_c > 0 THEN 'interruption'
            -- All three at once: the last to go went before the first came back.
            WHEN n_lost_a + n_lost_b + n_lost_c = 3 AND lost_from_ms < coalesce(lost_to_ms, lost_from_ms + 1) THEN 'interruption'
            ELSE 'dip'
        END AS kind,
        CASE WHEN n_ended > 0 THEN to_ms - from_ms END AS duration_ms,
        CASE direction WHEN 'over' THEN highest_pct ELSE lowest_pct END AS residual_pct,
        lag(from_ms) OVER (PARTITION BY meter_id, direction ORDER BY start_ts) AS before_ms
    FROM joined
)
SELECT
    k.meter_id,
    k.start_ts,
    k.kind,
    k.residual_pct,
    CASE k.kind WHEN 'swell' THEN k.residual_pct - 100 ELSE 100 - k.residual_pct END AS depth_pct,
    k.duration_ms,
    c.cell,
    coalesce(k.from_ms - k.before_ms >= 60000, true) AS counted,
    concat(
        CASE WHEN k.in_a = 1 THEN 'a' ELSE '' END, CASE WHEN k.in_b = 1 THEN 'b' ELSE '' END, CASE WHEN k.in_c = 1 THEN 'c' ELSE '' END
    ) AS event_phases,
    k.n_rows,
    k.feeder,
    k.customers,
    k.line_v,
    c.standard,
    c.clause
FROM kinds k
LEFT JOIN pq_event_classes c ON c.kind = k.kind AND k.residual_pct >= c.residual_from_pct AND k.residual_pct < c.residual_below_pct
    AND k.duration_ms > c.duration_above_ms AND k.duration_ms <= c.duration_upto_ms
