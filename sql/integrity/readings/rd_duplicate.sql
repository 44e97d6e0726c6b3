/*---
id          = "rd_duplicate"
kind        = "alert"
title       = "Readings of a meter came more than once for the same instant"
title_zh    = "重复数据与冲突数据"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "readings"
standard    = "internal"
owner       = "metering"
late        = "update"
description = """
Compares each reading with the one before it of the same meter, kind and instant. A conflict is a reading in which a
register, voltage, current or power differs from a value already there; a repeat is one that agrees in all that both hold.
The alert is about the local day: `warning` if there was a conflict, as one of the values is false and sums depend on
which is taken; `info` if there were only repeats, which count twice in sums of power. `measured` is the number of both.
A day without either resolves it. A repeat that comes days later, when data are collected again, is found as well.
Days are those of UTC+8 (they begin at 16:00 UTC): change the origin of the window for another zone.
Not seen: a difference in columns that are not compared. Of three readings of an instant each is compared with the one
before it only.
"""
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    repeats + conflicts > 0 AS firing,
    CASE WHEN conflicts > 0 THEN 'warning' ELSE 'info' END AS severity,
    repeats + conflicts AS measured,
    0 AS limit_high,
    'readings' AS unit,
    repeats,
    conflicts,
    first_at
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(*) FILTER (WHERE again AND NOT differs) AS repeats,
        count(*) FILTER (WHERE again AND differs) AS conflicts,
        min(ts) FILTER (WHERE again) AS first_at
    FROM (
        SELECT
            meter_id,
            ts,
            window_start,
            window_end,
            coalesce(ts = lag(ts) OVER w, false) AS again,
            coalesce(energy_imp_kwh <> lag(energy_imp_kwh) OVER w, false)
                OR coalesce(energy_exp_kwh <> lag(energy_exp_kwh) OVER w, false)
                OR coalesce(p_kw <> lag(p_kw) OVER w, false)
                OR coalesce(u_a_v <> lag(u_a_v) OVER w, false)
                OR coalesce(u_b_v <> lag(u_b_v) OVER w, false)
                OR coalesce(u_c_v <> lag(u_c_v) OVER w, false)
                OR coalesce(i_a_a <> lag(i_a_a) OVER w, false)
                OR coalesce(i_b_a <> lag(i_b_a) OVER w, false)
                OR coalesce(i_c_a <> lag(i_c_a) OVER w, false) AS differs
        FROM TUMBLE(meter_readings, ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
        WINDOW w AS (PARTITION BY meter_id, reading_kind, window_start ORDER BY ts)
    ) r
    GROUP BY meter_id, window_start, window_end
) d
