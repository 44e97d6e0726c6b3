/*---
id          = "an_load_profile"
kind        = "alert"
title       = "Customer's course of the day is not that of its kind"
title_zh    = "用电曲线与所属类别不符"
severity    = "info"
entity      = "meter_id"
category    = "anomaly"
unit        = "%"
standard    = "internal"
owner       = "analytics"
description = """
Takes the mean power of each local hour of the day over a week (from Monday), each as a share of the sum of all 24, and
compares them with the shares of the customer's group (`load_profiles`, by `peer_groups`): `measured` is half of the sum of
the differences, 0 for the same course, 100 for hours that never meet. Fires above `max_pct`: a shop on the tariff of a
flat, a meter that is bypassed at night, a wrong clock. Needs power values in all 24 hours and 24 rows of the profile, else
the verdict is `insufficient_data`. The amount of energy does not matter here. Resolves with a week that is within. Nothing
is kept beyond the week. Not seen: groups without a profile, and weeks with holidays look strange for all.
"""
[params]
max_pct = 30.0
zone    = "Asia/Shanghai"
---*/
WITH hours AS (
    SELECT
        meter_id,
        window_start,
        window_end,
        local_hour,
        CAST(avg(mean_kw) AS DECIMAL(16, 6)) AS hour_kw
    FROM TUMBLE((
        SELECT
            meter_id,
            window_start AS at,
            CAST(extract(hour FROM window_start AT TIME ZONE $zone) AS BIGINT) AS local_hour,
            mean_kw
        FROM an_load_hours
        WHERE mean_kw >= 0
    ), at, INTERVAL '7 days', TIMESTAMP '1970-01-04T16:00:00Z')
    GROUP BY meter_id, local_hour, window_start, window_end
),
shares AS (
    SELECT
        meter_id,
        window_start,
        window_end,
        local_hour,
        round(100 * CAST(hour_kw AS DOUBLE) / nullif(
            CAST(sum(hour_kw) OVER (PARTITION BY meter_id, window_start) AS DOUBLE), 0
        ), 9) AS share_pct
    FROM hours
)
SELECT
    meter_id,
    window_start,
    window_end,
    CASE WHEN hours = 24 THEN apart_pct > $max_pct END AS firing,
    CASE
        WHEN hours < 24 OR apart_pct IS NULL THEN 'insufficient_data' WHEN apart_pct > $max_pct THEN 'apart' ELSE 'alike'
    END AS verdict,
    CASE WHEN hours = 24 THEN apart_pct END AS measured,
    CAST($max_pct AS DOUBLE) AS limit_high,
    '%' AS unit,
    peer_group,
    hours
FROM (
    SELECT
        s.meter_id,
        g.peer_group,
        s.window_start,
        s.window_end,
        count(s.share_pct - TRY_CAST(p.share_pct AS DOUBLE)) AS hours,
        round(
            CAST(sum(TRY_CAST(abs(s.share_pct - TRY_CAST(p.share_pct AS DOUBLE)) AS DECIMAL(15, 9))) AS DOUBLE) / 2, 6
        ) AS apart_pct
    FROM shares s
    JOIN peer_groups g ON g.meter_id = s.meter_id
    JOIN load_profiles p ON p.peer_group = g.peer_group AND p.local_hour = s.local_hour
    GROUP BY s.meter_id, g.peer_group, s.window_start, s.window_end
) d
