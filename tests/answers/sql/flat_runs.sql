/*---
id          = "flat_runs"
kind        = "table"
title       = "Longest run so far of readings with the same power"
entity      = "meter_id"
owner       = "metering"
standard    = "internal"
description = """
Follows each meter and gives a row whenever the run of equal values of power that it is in is longer than all before it,
so the last row of a meter is its longest run, the first of several of one length. A missing value ends a run. A value
that does not move for long may be a meter that is frozen.
"""
---*/
WITH numbered AS (
    SELECT
        meter_id,
        ts,
        local_ts,
        p_kw,
        row_number() OVER w AS n,
        (p_kw IS DISTINCT FROM lag(p_kw) OVER w) AS begins
    FROM local_readings
    WHERE source = 'readings'
    WINDOW w AS (PARTITION BY meter_id ORDER BY ts)
),
runs AS (
    SELECT
        meter_id,
        ts,
        p_kw,
        n + 1 - last_value(CASE WHEN begins THEN n END) IGNORE NULLS OVER w AS minutes,
        last_value(CASE WHEN begins THEN local_ts END) IGNORE NULLS OVER w AS first_ts
    FROM numbered
    WINDOW w AS (PARTITION BY meter_id ORDER BY ts)
)
SELECT meter_id, ts, minutes, first_ts, p_kw
FROM runs
WHERE p_kw IS NOT NULL
QUALIFY minutes > coalesce(
    max(minutes) OVER (PARTITION BY meter_id ORDER BY ts ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0
)
