/*---
id          = "an_peer_usage"
kind        = "alert"
title       = "Customer uses far less than customers of the same kind"
title_zh    = "用电量远低于同类客户"
severity    = "info"
entity      = "meter_id"
category    = "anomaly"
unit        = "%"
standard    = "internal"
owner       = "analytics"
description = """
Compares the energy of the week (an_usage_weeks) with the median of the customers of the same group (`peer_groups`: kind of
dwelling, or of trade) and fires when it is less than `min_share_pct` of it. `place_pct` says what share of the group uses
at most as much. With fewer than `min_peers` of the group, or a median up to `min_kwh`, the verdict is `insufficient_data`.
Finds what was low from the beginning, which an_usage_drop cannot. Nothing is kept beyond the week. Not seen: customers
without a group, and groups whose members have little in common. An empty house looks alike.
"""
[params]
min_share_pct = 20.0
min_peers     = 10
min_kwh       = 5.0
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CASE verdict WHEN 'low' THEN TRUE WHEN 'usual' THEN FALSE END AS firing,
    verdict,
    CASE WHEN verdict <> 'insufficient_data' THEN TRY_CAST(kwh * 100 / nullif(peers_kwh, 0) AS DECIMAL(18, 6)) END AS measured,
    $min_share_pct AS limit_low,
    '%' AS unit,
    kwh,
    peers_kwh,
    CAST(CAST(place AS DECIMAL(18, 6)) * 100 / peers AS DECIMAL(9, 4)) AS place_pct,
    peers,
    peer_group,
    feeder
FROM (
    SELECT
        *,
        CASE
            WHEN peers < $min_peers OR peers_kwh <= $min_kwh THEN 'insufficient_data'
            WHEN kwh * 100 < peers_kwh * $min_share_pct THEN 'low'
            ELSE 'usual'
        END AS verdict
    FROM (
        SELECT
            u.meter_id,
            u.window_start,
            u.window_end,
            TRY_CAST(u.kwh AS DECIMAL(18, 4)) AS kwh,
            u.feeder,
            g.peer_group,
            TRY_CAST(median(u.kwh) OVER (PARTITION BY g.peer_group, u.window_start) AS DECIMAL(18, 4)) AS peers_kwh,
            count(*) OVER (PARTITION BY g.peer_group, u.window_start) AS peers,
            count(*) OVER (
                PARTITION BY g.peer_group, u.window_start ORDER BY u.kwh
                RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            ) AS place
        FROM an_usage_weeks u
        JOIN peer_groups g ON g.meter_id = u.meter_id
        WHERE u.kwh IS NOT NULL
    ) p
) v
