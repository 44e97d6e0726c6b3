/*---
id          = "dv_collection_success"
kind        = "alert"
title       = "Collection success rate of the day below 99.5 %"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "%"
standard    = "internal"
owner       = "operations"
description = """
Readings that a concentrator or head end received in time (`collect_ok`) over those it should have received
(`collect_expected`), summed over the local day. A rate equal to the limit is good. Days are those of UTC+8. Samples with a
count that is missing, negative or above 10^9 are left out.
"""
params      = { limit_pct = 99.5 }
---*/
SELECT
    device_id,
    window_start,
    window_end,
    received * 100 < expected * $limit_pct AS firing,
    round(100 * CAST(received AS DOUBLE) / expected, 6) AS measured,
    $limit_pct AS limit_low,
    '%' AS unit,
    received,
    expected
FROM (
    SELECT
        device_id,
        window_start,
        window_end,
        sum(collect_ok) AS received,
        sum(collect_expected) AS expected
    FROM TUMBLE(device_metrics, ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    WHERE collect_ok BETWEEN 0 AND 1000000000 AND collect_expected BETWEEN 0 AND 1000000000
    GROUP BY device_id, window_start, window_end
) d
WHERE expected > 0
