/*---
id          = "dv_temperature_peers"
kind        = "alert"
title       = "Device is much hotter than its peers"
title_zh    = "设备温度明显高于同类"
severity    = "warning"
entity      = "device_id"
category    = "device"
unit        = "Cel"
standard    = "internal"
owner       = "operations"
description = """
Compares the mean temperature of a device in a UTC hour with those of the other devices of its type and area (reference
table `devices`) in the same hour. Fires when it lies more than `limit_z` of their standard deviations above their mean;
the deviation is taken as at least `min_spread_c`, as a cabinet full of equal devices has almost none. All of them get
hot in summer; one alone has a dead fan, a bad contact or a fire beside it. `measured` is the mean of the hour,
`limit_high` where it fires, `z` how far it is off. It takes `min_peers` other devices with a value; with fewer, and for
devices without an area, nothing is said. Absolute limits are those of dv_type_limits.
Not seen: a device that is hotter by its place; give such a place an area of its own.
"""
params      = { limit_z = 4.0, min_spread_c = 0.5, min_peers = 8 }
---*/
WITH hours AS (
    SELECT
        device_id,
        window_start,
        window_end,
        CAST(avg(value) AS DECIMAL(9, 3)) AS mean_c
    FROM TUMBLE(dv_values, ts, INTERVAL '1 hour')
    WHERE metric = 'temp_c'
    GROUP BY device_id, window_start, window_end
),
placed AS (
    SELECT h.*, d.device_type, d.area
    FROM hours h
    JOIN devices d ON d.device_id = h.device_id
    WHERE d.device_type IS NOT NULL AND d.area IS NOT NULL
),
others AS (
    SELECT
        *,
        count(*) OVER w - 1 AS peers,
        sum(mean_c) OVER w - mean_c AS sum_c,
        sum(mean_c * mean_c) OVER w - mean_c * mean_c AS squares_c
    FROM placed
    WINDOW w AS (PARTITION BY device_type, area, window_start)
),
spreads AS (
    SELECT
        *,
        CAST(sum_c AS DOUBLE) / peers AS peers_mean_c,
        greatest(
            sqrt(greatest(CAST(peers * squares_c - sum_c * sum_c AS DOUBLE), 0.0) / (CAST(peers AS DOUBLE) * (peers - 1))),
            CAST($min_spread_c AS DOUBLE)
        ) AS spread_c
    FROM others
    WHERE peers >= $min_peers AND peers >= 2
)
SELECT
    device_id,
    window_start,
    window_end,
    round((CAST(mean_c AS DOUBLE) - peers_mean_c) / spread_c, 6) > $limit_z AS firing,
    mean_c AS measured,
    round(peers_mean_c + CAST($limit_z AS DOUBLE) * spread_c, 6) AS limit_high,
    'Cel' AS unit,
    round((CAST(mean_c AS DOUBLE) - peers_mean_c) / spread_c, 6) AS z,
    round(peers_mean_c, 6) AS peers_mean_c,
    round(spread_c, 6) AS spread_c,
    peers,
    device_type,
    area
FROM spreads
