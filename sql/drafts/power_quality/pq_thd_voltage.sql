/*---
id          = "pq_thd_voltage"
kind        = "alert"
title       = "Harmonic distortion of the voltage above the limit of its voltage class"
severity    = "warning"
entity      = "meter_id"
standard    = "GB/T 14549-1993"
clause      = "4"
category    = "pq"
unit        = "%"
owner       = "power-quality"
description = """
Once a day (of UTC+8, from 16:00 UTC): the 95 % value of the total harmonic distortion of each phase, that is the largest
after the largest 5 % of the values are left out; the worst phase is judged. The limit follows the nominal phase voltage
in `meters`: 5 % up to 1 kV, 4 % up to 15 kV (6, 10 and 20 kV networks), 3 % up to 45 kV (35 and 66 kV), 2 % above. A
value equal to the limit is inside. Lasting distortion heats transformers and capacitors and disturbs electronics.
A meter behind voltage transformers must have its primary voltage in `meters`. Flagged readings do not count, nor does a
phase with fewer than `min_samples` values: with no phase left, the day gives no verdict and an open alert stays. The
default is 90 % of a reading every 15 minutes. The standard asks for 3 s values; means or instants of a meter show the
trend, not compliance. pq_harmonic_ratio judges the orders by themselves.
"""
params      = { limit_lv_pct = 5.0, limit_10kv_pct = 4.0, limit_35kv_pct = 3.0, limit_110kv_pct = 2.0, min_samples = 87 }
---*/
SELECT
    d.meter_id,
    d.window_start,
    d.window_end,
    d.worst_pct > d.limit_pct AS firing,
    d.worst_pct AS measured,
    d.limit_pct AS limit_high,
    '%' AS unit,
    d.p95_a_pct,
    d.p95_b_pct,
    d.p95_c_pct,
    d.samples_a,
    d.samples_b,
    d.samples_c
FROM (
    SELECT
        w.*,
        greatest(w.p95_a_pct, w.p95_b_pct, w.p95_c_pct) AS worst_pct,
        CASE
            WHEN CAST(m.nominal_v AS DOUBLE) <= 1000 THEN $limit_lv_pct
            WHEN CAST(m.nominal_v AS DOUBLE) <= 15000 THEN $limit_10kv_pct
            WHEN CAST(m.nominal_v AS DOUBLE) <= 45000 THEN $limit_35kv_pct
            ELSE $limit_110kv_pct
        END AS limit_pct
    FROM (
        SELECT
            meter_id,
            window_start,
            window_end,
            samples_a,
            samples_b,
            samples_c,
            CASE WHEN samples_a >= $min_samples THEN TRY_CAST(p95_a AS DECIMAL(12, 6)) END AS p95_a_pct,
            CASE WHEN samples_b >= $min_samples THEN TRY_CAST(p95_b AS DECIMAL(12, 6)) END AS p95_b_pct,
            CASE WHEN samples_c >= $min_samples THEN TRY_CAST(p95_c AS DECIMAL(12, 6)) END AS p95_c_pct
        FROM (
            SELECT
                meter_id,
                window_start,
                window_end,
                count(a_pct) AS samples_a,
                count(b_pct) AS samples_b,
                count(c_pct) AS samples_c,
                gb_percentile_95(a_pct) AS p95_a,
                gb_percentile_95(b_pct) AS p95_b,
                gb_percentile_95(c_pct) AS p95_c
            FROM (
                SELECT
                    meter_id,
                    window_start,
                    window_end,
                    CAST(TRY_CAST(thd_u_a_pct AS DECIMAL(12, 6)) AS DOUBLE) AS a_pct,
                    CAST(TRY_CAST(thd_u_b_pct AS DECIMAL(12, 6)) AS DOUBLE) AS b_pct,
                    CAST(TRY_CAST(thd_u_c_pct AS DECIMAL(12, 6)) AS DOUBLE) AS c_pct
                FROM TUMBLE(meter_readings, ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
                WHERE pq_flagged IS NOT TRUE
            ) r
            GROUP BY meter_id, window_start, window_end
        ) p
    ) w
    JOIN meters m ON m.meter_id = w.meter_id
    WHERE m.nominal_v IS NOT NULL
) d
WHERE d.worst_pct IS NOT NULL
