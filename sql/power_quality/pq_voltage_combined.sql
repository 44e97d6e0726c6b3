/*---
id          = "pq_voltage_combined"
kind        = "table"
title       = "Combined voltage qualification rate of an organisation and month"
title_zh    = "综合电压合格率"
standard    = "GB/T 12325-2008"
clause      = "annex A"
category    = "pq"
entity      = "org_id"
unit        = "%"
owner       = "power-quality"
description = """
The figure by which a supply company reports voltage: `class_a_weight` of the rate of class A points plus the rest of the mean of
classes B, C and D. Classes are those of the point in `pq_points` at the end of the month: A busbars of substations that feed 10 kV, B
dedicated 35 and 66 kV lines and users from 110 kV on, C shared 35 and 66 kV lines and users of 10 kV, D users of 380 and 220 V. The
rate of a class is the mean of its points' rates in pq_voltage_month; points without enough data there do not count. A class without a
point is left out, the mean is that of the others, and `classes_missing` names it: such a figure is not comparable.
"""
params      = { class_a_weight = 0.5 }
---*/
SELECT
    org_id,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_month,
    rate_a_pct,
    rate_b_pct,
    rate_c_pct,
    rate_d_pct,
    CAST(
        CASE
            WHEN rate_a_pct IS NULL THEN rate_bcd_pct
            WHEN rate_bcd_pct IS NULL THEN rate_a_pct
            ELSE $class_a_weight * rate_a_pct + (1 - $class_a_weight) * rate_bcd_pct
        END AS DECIMAL(9, 6)
    ) AS combined_rate_pct,
    concat(
        CASE WHEN rate_a_pct IS NULL THEN 'A' ELSE '' END,
        CASE WHEN rate_b_pct IS NULL THEN 'B' ELSE '' END,
        CASE WHEN rate_c_pct IS NULL THEN 'C' ELSE '' END,
        CASE WHEN rate_d_pct IS NULL THEN 'D' ELSE '' END
    ) AS classes_missing,
    points_judged,
    points_without_data,
    'instant' AS basis
FROM (
    SELECT
        *,
        CAST(
            (coalesce(rate_b_pct, 0) + coalesce(rate_c_pct, 0) + coalesce(rate_d_pct, 0)) / nullif(
                CASE WHEN rate_b_pct IS NULL THEN 0 ELSE 1 END + CASE WHEN rate_c_pct IS NULL THEN 0 ELSE 1 END
                    + CASE WHEN rate_d_pct IS NULL THEN 0 ELSE 1 END,
                0
            ) AS DECIMAL(12, 9)
        ) AS rate_bcd_pct
    FROM (
        SELECT
            p.org_id,
            m.window_start,
            m.window_end,
            CAST(avg(m.rate_pct) FILTER (WHERE p.point_class = 'A' AND m.verdict <> 'insufficient_data') AS DECIMAL(9, 6)) AS rate_a_pct,
            CAST(avg(m.rate_pct) FILTER (WHERE p.point_class = 'B' AND m.verdict <> 'insufficient_data') AS DECIMAL(9, 6)) AS rate_b_pct,
            CAST(avg(m.rate_pct) FILTER (WHERE p.point_class = 'C' AND m.verdict <> 'insufficient_data') AS DECIMAL(9, 6)) AS rate_c_pct,
            CAST(avg(m.rate_pct) FILTER (WHERE p.point_class = 'D' AND m.verdict <> 'insufficient_data') AS DECIMAL(9, 6)) AS rate_d_pct,
            count(*) FILTER (WHERE m.verdict <> 'insufficient_data') AS points_judged,
            count(*) FILTER (WHERE m.verdict = 'insufficient_data') AS points_without_data
        FROM pq_voltage_month m
        JOIN pq_points p ON p.meter_id = m.meter_id
            -- The version of the last moment of the month.
            AND (p.valid_from IS NULL OR p.valid_from < m.window_end) AND (p.valid_to IS NULL OR m.window_end <= p.valid_to)
        WHERE p.org_id IS NOT NULL AND p.point_class IN ('A', 'B', 'C', 'D')
        GROUP BY p.org_id, m.window_start, m.window_end
    ) c
) r
WHERE points_judged > 0
