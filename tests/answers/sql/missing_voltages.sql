/*---
id          = "missing_voltages"
kind        = "table"
title       = "Minutes of which the voltage of phase a is missing"
entity      = "meter_id"
owner       = "metering"
standard    = "internal"
description = """
One row for each reading without the voltage of phase a, of meters that have this phase in the register `meters`. `run`
numbers the runs of such minutes that follow each other without a pause.
"""
---*/
WITH missing AS (
    SELECT r.meter_id, r.ts, r.local_ts
    FROM local_readings r
    JOIN meters m ON m.meter_id = r.meter_id
    WHERE r.source = 'readings' AND r.v_a IS NULL AND strpos(m.phase, 'a') > 0
),
steps AS (
    SELECT
        *,
        coalesce(ts - lag(ts) OVER (PARTITION BY meter_id ORDER BY ts) > INTERVAL '1 minute', TRUE) AS begins
    FROM missing
)
SELECT
    meter_id,
    ts,
    local_ts,
    count(*) FILTER (WHERE begins) OVER (PARTITION BY meter_id ORDER BY ts) AS run
FROM steps
