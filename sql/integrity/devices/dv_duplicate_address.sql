/*---
id          = "dv_duplicate_address"
kind        = "alert"
title       = "Two devices use one communication address"
title_zh    = "通信地址重复"
severity    = "critical"
entity      = "address"
category    = "device"
unit        = "devices"
standard    = "internal"
owner       = "operations"
description = """
Fires for each UTC hour in which samples of more than one device carry the same communication address (tag `address`, such
as an IP, MAC or terminal address): answers reach the wrong one, readings of one are booked on the other. `first_device`
and `last_device` name two of them. Resolves with the first hour in which one device alone uses the address. A device
that was exchanged within the hour looks the same once. Samples without the tag are left out.
Not seen: an address of which only one user is heard.
"""
---*/
SELECT
    address,
    window_start,
    window_end,
    users > 1 AS firing,
    users AS measured,
    1 AS limit_high,
    'devices' AS unit,
    first_device,
    last_device
FROM (
    SELECT
        address,
        window_start,
        window_end,
        count(DISTINCT device_id) AS users,
        min(device_id) AS first_device,
        max(device_id) AS last_device
    FROM TUMBLE((SELECT device_id, ts, tags['address'] AS address FROM device_metrics), ts, INTERVAL '1 hour')
    WHERE address <> ''
    GROUP BY address, window_start, window_end
) h
