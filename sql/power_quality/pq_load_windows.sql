/*---
id          = "pq_load_windows"
kind        = "view"
title       = "Load of transformers in 15-minute windows"
title_zh    = "变压器15分钟负载率"
standard    = "internal"
category    = "load"
unit        = "%"
owner       = "distribution"
description = """
Apparent power of the 15-minute means of active and reactive power over the rated capacity (`sn_kva` of `pq_points` at the end of the
window); where powers are missing, the sum of phase voltages times phase currents. `max_phase_pct` is three times the most loaded phase
over the capacity. Powers and currents are times the ratios of the instrument transformers in `pq_points`; power fed back counts as
load. Points without a capacity have no row. `basis` is `power` or `current`.
"""
---*/
SELECT
    s.meter_id,
    s.window_start,
    s.window_end,
    CASE WHEN s.mean_kw IS NOT NULL AND s.mean_kvar IS NOT NULL THEN 'power' ELSE 'current' END AS basis,
    CASE WHEN s.mean_kw < 0 THEN 'export' ELSE 'import' END AS direction,
    p.vector_group,
    p.line_v,
    p.sn_kva AS capacity_kva,
    TRY_CAST(s.secondary_kva * CAST(coalesce(p.ct_ratio, 1) * coalesce(p.pt_ratio, 1) AS DOUBLE) AS DECIMAL(18, 6)) AS apparent_kva,
    TRY_CAST(
        100 * s.secondary_kva * CAST(coalesce(p.ct_ratio, 1) * coalesce(p.pt_ratio, 1) AS DOUBLE) / CAST(p.sn_kva AS DOUBLE) AS DECIMAL(18, 6)
    ) AS load_pct,
    TRY_CAST(
        300 * s.max_phase_kva * CAST(coalesce(p.ct_ratio, 1) * coalesce(p.pt_ratio, 1) AS DOUBLE) / CAST(p.sn_kva AS DOUBLE) AS DECIMAL(18, 6)
    ) AS max_phase_pct,
    TRY_CAST(s.mean_a_a * coalesce(p.ct_ratio, 1) AS DECIMAL(18, 6)) AS mean_a_a,
    TRY_CAST(s.mean_b_a * coalesce(p.ct_ratio, 1) AS DECIMAL(18, 6)) AS mean_b_a,
    TRY_CAST(s.mean_c_a * coalesce(p.ct_ratio, 1) AS DECIMAL(18, 6)) AS mean_c_a,
    TRY_CAST(s.mean_n_a * coalesce(p.ct_ratio, 1) AS DECIMAL(18, 6)) AS mean_n_a
FROM (
    SELECT *, coalesce(sqrt(mean_kw * mean_kw + mean_kvar * mean_kvar), phases_kva) AS secondary_kva
    FROM (
        SELECT
            meter_id,
            window_start,
            window_end,
            CAST(avg(TRY_CAST(p_kw AS DECIMAL(15, 6))) FILTER (WHERE q_kvar IS NOT NULL) AS DOUBLE) AS mean_kw,
            CAST(avg(TRY_CAST(q_kvar AS DECIMAL(15, 6))) FILTER (WHERE p_kw IS NOT NULL) AS DOUBLE) AS mean_kvar,
            CAST(avg(a_kva + b_kva + c_kva) AS DOUBLE) AS phases_kva,
            CAST(greatest(avg(a_kva), avg(b_kva), avg(c_kva)) AS DOUBLE) AS max_phase_kva,
            CAST(avg(TRY_CAST(i_a_a AS DECIMAL(12, 6))) AS DECIMAL(12, 6)) AS mean_a_a,
            CAST(avg(TRY_CAST(i_b_a AS DECIMAL(12, 6))) AS DECIMAL(12, 6)) AS mean_b_a,
            CAST(avg(TRY_CAST(i_c_a AS DECIMAL(12, 6))) AS DECIMAL(12, 6)) AS mean_c_a,
            CAST(avg(TRY_CAST(i_n_a AS DECIMAL(12, 6))) AS DECIMAL(12, 6)) AS mean_n_a
        FROM TUMBLE(
            (
                SELECT
                    meter_id, ts, p_kw, q_kvar, i_a_a, i_b_a, i_c_a, i_n_a,
                    TRY_CAST(u_a_v * i_a_a / 1000 AS DECIMAL(15, 6)) AS a_kva,
                    TRY_CAST(u_b_v * i_b_a / 1000 AS DECIMAL(15, 6)) AS b_kva,
                    TRY_CAST(u_c_v * i_c_a / 1000 AS DECIMAL(15, 6)) AS c_kva
                FROM meter_readings
            ),
            ts,
            INTERVAL '15 minutes'
        )
        GROUP BY meter_id, window_start, window_end
    ) w
) s
JOIN pq_points p ON p.meter_id = s.meter_id
WHERE p.sn_kva > 0
