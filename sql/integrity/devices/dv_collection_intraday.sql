/*---
id          = "dv_collection_intraday"
kind        = "alert"
title       = "Collection success rate since midnight below 98 %"
title_zh    = "当日采集成功率偏低"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "%"
standard    = "internal"
owner       = "operations"
description = """
Readings that a concentrator or head end received in time (`collect_ok`) over those it should have received
(`collect_expected`), summed from local midnight (UTC+8) to the end of each hour. Tells before the day is over what
dv_collection_success tells after it, at a lower limit. A rate equal to the limit is good; it takes `min_expected`
expected readings. Resolves with the first hour from which the sums are good again, at the latest on the next day.
Not seen: meters that a device does not know that it should read.
"""
params      = { limit_pct = 98.0, min_expected = 100 }
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
    FROM CUMULATE(device_metrics, ts, INTERVAL '1 hour', INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    WHERE collect_ok BETWEEN 0 AND 1000000000 AND collect_expected BETWEEN 0 AND 1000000000
    GROUP BY device_id, window_start, window_end
) d
WHERE expected >= $min_expected
