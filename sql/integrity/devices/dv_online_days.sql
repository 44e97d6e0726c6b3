/*---
id          = "dv_online_days"
kind        = "table"
title       = "Online rate of each registered device and day"
title_zh    = "设备日在线率"
category    = "device"
entity      = "device_id"
unit        = "%"
standard    = "internal"
owner       = "operations"
description = """
One row per local day (UTC+8) and device that the reference table `devices` holds throughout the day. The period of the
device (`step_s`) promises `expected` instants a day; `online` counts those with a sample that says `online = true`,
`offline` those that say `online = false`. What did not come is not online: a device that sent nothing has 0 %, one that
sent samples, none of which says whether it is online, has no rate. The rate is never above 100 %. `whole_day` is false
where no device at all was heard in the first or in the last hour of the day: the stream began, ended or stood still, and
the rates of that day are too low. A day without any sample of any device has no rows.
"""
---*/
WITH days AS (
    SELECT window_start, window_end, min(ts) AS first_at, max(ts) AS last_at
    FROM TUMBLE(device_metrics, ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    GROUP BY window_start, window_end
),
heard AS (
    SELECT
        device_id,
        window_start,
        window_end,
        count(*) AS samples,
        count(online) AS told,
        count(DISTINCT ts) FILTER (WHERE online = true) AS online_instants,
        count(DISTINCT ts) FILTER (WHERE online = false) AS offline_instants
    FROM TUMBLE(device_metrics, ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    GROUP BY device_id, window_start, window_end
)
SELECT
    device_id,
    device_type,
    window_start,
    window_end,
    CAST(
        CAST(CASE WHEN online > expected THEN expected ELSE online END AS DECIMAL(18, 6)) * 100 / expected AS DECIMAL(9, 6)
    ) AS online_pct,
    expected,
    online,
    offline,
    samples,
    whole_day
FROM (
    SELECT
        d.device_id,
        d.device_type,
        w.window_start,
        w.window_end,
        86400 / d.step_s AS expected,
        CASE WHEN h.samples > 0 AND h.told = 0 THEN NULL ELSE coalesce(h.online_instants, 0) END AS online,
        coalesce(h.offline_instants, 0) AS offline,
        coalesce(h.samples, 0) AS samples,
        w.first_at <= w.window_start + INTERVAL '1 hour'
            AND w.last_at >= w.window_end - INTERVAL '1 hour' AS whole_day
    FROM days w
    CROSS JOIN devices d
    LEFT JOIN heard h ON h.device_id = d.device_id AND h.window_start = w.window_start
    WHERE d.step_s BETWEEN 1 AND 86400
        AND (d.valid_from IS NULL OR d.valid_from <= w.window_start)
        AND (d.valid_to IS NULL OR d.valid_to >= w.window_end)
) e
