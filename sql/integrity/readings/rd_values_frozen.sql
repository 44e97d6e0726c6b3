/*---
id          = "rd_values_frozen"
kind        = "alert"
title       = "All measured values of a meter stand still"
title_zh    = "量测值冻结不变"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
unit        = "readings"
standard    = "internal"
owner       = "metering"
description = """
Fires when twelve readings in a row hold the same voltages, currents and powers to the last digit, while there is voltage:
the meter or the head end repeats an old reading. Living values differ in their last digit within minutes. `measured` is
the number of readings that were compared, `frozen_since` the first of them. Resolves with the first reading that differs.
Compared are instant and interval readings with at least one voltage above 0 and at least one current or power; a channel
that is missing from some of the twelve counts as different.
Not seen: fewer than twelve readings, a meter without load that rounds its voltage coarsely may fire.
"""
---*/
SELECT
    meter_id,
    ts,
    CASE WHEN readings = 12 THEN still END AS firing,
    readings AS measured,
    'readings' AS unit,
    CASE WHEN readings = 12 AND still THEN first_ts END AS frozen_since,
    u_a_v,
    i_a_a,
    p_kw
FROM (
    SELECT
        meter_id,
        ts,
        u_a_v,
        i_a_a,
        p_kw,
        count(*) OVER w AS readings,
        min(ts) OVER w AS first_ts,
        (count(u_a_v) OVER w = 0 OR (count(u_a_v) OVER w = count(*) OVER w AND max(u_a_v) OVER w = min(u_a_v) OVER w))
            AND (count(u_b_v) OVER w = 0 OR (count(u_b_v) OVER w = count(*) OVER w AND max(u_b_v) OVER w = min(u_b_v) OVER w))
            AND (count(u_c_v) OVER w = 0 OR (count(u_c_v) OVER w = count(*) OVER w AND max(u_c_v) OVER w = min(u_c_v) OVER w))
            AND (count(i_a_a) OVER w = 0 OR (count(i_a_a) OVER w = count(*) OVER w AND max(i_a_a) OVER w = min(i_a_a) OVER w))
            AND (count(i_b_a) OVER w = 0 OR (count(i_b_a) OVER w = count(*) OVER w AND max(i_b_a) OVER w = min(i_b_a) OVER w))
            AND (count(i_c_a) OVER w = 0 OR (count(i_c_a) OVER w = count(*) OVER w AND max(i_c_a) OVER w = min(i_c_a) OVER w))
            AND (count(p_kw) OVER w = 0 OR (count(p_kw) OVER w = count(*) OVER w AND max(p_kw) OVER w = min(p_kw) OVER w))
            AS still
    FROM meter_readings
    WHERE coalesce(reading_kind, 'instant') IN ('instant', 'interval')
        AND greatest(u_a_v, u_b_v, u_c_v) > 0
        AND coalesce(i_a_a, i_b_a, i_c_a, p_kw) IS NOT NULL
    WINDOW w AS (PARTITION BY meter_id ORDER BY ts ROWS 11 PRECEDING)
) r
