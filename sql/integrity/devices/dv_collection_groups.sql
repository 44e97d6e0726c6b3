/*---
id          = "dv_collection_groups"
kind        = "alert"
title       = "Collection success rate of an area, a vendor or a firmware below 99.5 %"
title_zh    = "分区域、厂家、固件采集成功率偏低"
severity    = "warning"
entity      = ["grouping", "member"]
category    = "device"
unit        = "%"
standard    = "internal"
owner       = "operations"
description = """
Sums `collect_ok` and `collect_expected` of the devices of an area, of a vendor and of a firmware (`area`, `vendor` of the
reference table `devices`; the firmware that a device reports, else that of the table) over the local day (UTC+8). A rate
equal to the limit is good. One device has its own alert (dv_collection_success); here one sees what they have in common.
It takes `min_devices` devices; of smaller groups nothing is said. Devices that are not in the table, and groups without a
name, are left out. Resolves with the first day that is good.
"""
params      = { limit_pct = 99.5, min_devices = 2 }
---*/
SELECT
    grouping,
    member,
    window_start,
    window_end,
    received * 100 < expected * $limit_pct AS firing,
    round(100 * CAST(received AS DOUBLE) / expected, 6) AS measured,
    $limit_pct AS limit_low,
    '%' AS unit,
    received,
    expected,
    devices
FROM (
    SELECT
        grouping,
        member,
        window_start,
        window_end,
        sum(collect_ok) AS received,
        sum(collect_expected) AS expected,
        count(DISTINCT device_id) AS devices
    FROM TUMBLE((
        SELECT device_id, ts, collect_ok, collect_expected, item['grouping'] AS grouping, item['member'] AS member
        FROM (
            SELECT
                device_id,
                ts,
                collect_ok,
                collect_expected,
                unnest([
                    named_struct('grouping', 'area', 'member', area),
                    named_struct('grouping', 'vendor', 'member', vendor),
                    named_struct('grouping', 'firmware', 'member', firmware)
                ]) AS item
            FROM (
                SELECT
                    r.device_id,
                    r.ts,
                    r.collect_ok,
                    r.collect_expected,
                    d.area,
                    d.vendor,
                    coalesce(nullif(trim(r.firmware), ''), d.firmware) AS firmware
                FROM device_metrics r
                JOIN devices d ON d.device_id = r.device_id
                WHERE r.collect_ok BETWEEN 0 AND 1000000000 AND r.collect_expected BETWEEN 0 AND 1000000000
            ) j
        ) l
    ), ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    WHERE member IS NOT NULL AND member <> ''
    GROUP BY grouping, member, window_start, window_end
) g
WHERE expected > 0 AND devices >= $min_devices
