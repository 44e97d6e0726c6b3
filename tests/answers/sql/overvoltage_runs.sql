/*---
id          = "overvoltage_runs"
kind        = "table"
title       = "Longest run so far of minutes above the limit of voltage"
entity      = ["meter_id", "phase"]
owner       = "power quality"
unit        = "V"
standard    = "GB/T 12325-2008"
clause      = "4.3"
description = """
Follows each phase and gives a row whenever the run of minutes above the limit that it is in is longer than all before
it, so the last row of a phase is its longest run, the first of several of one length. A minute that is missing ends a
run.
"""
[params]
nominal_v = 220
upper_pct = 7.0
---*/
WITH numbered AS (
    SELECT
        meter_id,
        phase,
        ts,
        local_ts,
        row_number() OVER w AS n,
        coalesce(ts - lag(ts) OVER w > INTERVAL '1 minute', TRUE) AS begins
    FROM phase_voltages
    WHERE source = 'readings' AND v > $nominal_v * (100 + $upper_pct) / 100
    WINDOW w AS (PARTITION BY meter_id, phase ORDER BY ts)
),
runs AS (
    SELECT
        meter_id,
        phase,
        ts,
        n + 1 - last_value(CASE WHEN begins THEN n END) IGNORE NULLS OVER w AS minutes,
        last_value(CASE WHEN begins THEN local_ts END) IGNORE NULLS OVER w AS first_ts
    FROM numbered
    WINDOW w AS (PARTITION BY meter_id, phase ORDER BY ts)
)
SELECT meter_id, phase, ts, minutes, first_ts
FROM runs
QUALIFY minutes > coalesce(
    max(minutes) OVER (PARTITION BY meter_id, phase ORDER BY ts ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0
)
