/*---
id          = "phase_voltages"
kind        = "view"
title       = "Voltages, one row for each phase that was measured"
owner       = "power quality"
standard    = "internal"
description = "Exact decimals, so that a value equal to a limit is inside. Phases that a meter lacks, and missing values, are left out."
---*/
SELECT source, meter_id, ts, local_ts, phase, v
FROM (
    SELECT
        source,
        meter_id,
        ts,
        local_ts,
        unnest(make_array('a', 'b', 'c')) AS phase,
        unnest(make_array(
            TRY_CAST(v_a AS DECIMAL(12, 6)), TRY_CAST(v_b AS DECIMAL(12, 6)), TRY_CAST(v_c AS DECIMAL(12, 6))
        )) AS v
    FROM local_readings
)
WHERE v IS NOT NULL
