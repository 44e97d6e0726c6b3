/*---
id          = "pq_harmonic_ratio"
kind        = "alert"
title       = "Harmonic voltage of one order above the limit of its voltage class"
severity    = "warning"
entity      = ["meter_id", "harmonic_order"]
standard    = "GB/T 14549-1993"
clause      = "4"
category    = "pq"
unit        = "%"
owner       = "power-quality"
description = """
Once a day (of UTC+8, from 16:00 UTC), for each order from 2 to 25 of the list `u_h` (percent of the fundamental, its
first element is order 2): the 95 % value, that is the largest after the largest 5 % of the values are left out. The limit
for odd and for even orders follows the nominal phase voltage in `meters`: 4 and 2 % up to 1 kV, 3.2 and 1.6 % up to 15 kV
(6, 10 and 20 kV networks), 2.4 and 1.2 % up to 45 kV (35 and 66 kV), 1.6 and 0.8 % above. A value equal to the limit is
inside. The order points to the cause: 5 and 7 are rectifiers of six pulses, 3 is single-phase electronics, even ones are
half waves.
A meter behind voltage transformers must have its primary voltage in `meters`. Flagged readings do not count, and an order
with fewer than `min_samples` values gives no verdict, so an open alert stays; the default is 90 % of a reading every 15
minutes. The list carries no phase: whether it is the worst one depends on the meter. The standard asks for 3 s values;
others show the trend, not compliance. The distortion as a whole is in pq_thd_voltage.
"""
params      = { lv_pct = 4.0, mv_10kv_pct = 3.2, mv_35kv_pct = 2.4, hv_pct = 1.6, even_share = 0.5, min_samples = 87 }
---*/
SELECT
    meter_id,
    harmonic_order,
    window_start,
    window_end,
    p95_pct > limit_pct AS firing,
    p95_pct AS measured,
    limit_pct AS limit_high,
    '%' AS unit,
    samples
FROM (
    SELECT
        w.meter_id,
        w.harmonic_order,
        w.window_start,
        w.window_end,
        w.samples,
        TRY_CAST(w.p95 AS DECIMAL(9, 4)) AS p95_pct,
        CAST(
            CASE
                WHEN CAST(m.nominal_v AS DOUBLE) <= 1000 THEN $lv_pct
                WHEN CAST(m.nominal_v AS DOUBLE) <= 15000 THEN $mv_10kv_pct
                WHEN CAST(m.nominal_v AS DOUBLE) <= 45000 THEN $mv_35kv_pct
                ELSE $hv_pct
            END * CASE WHEN w.harmonic_order % 2 = 0 THEN $even_share ELSE 1.0 END AS DECIMAL(9, 4)
        ) AS limit_pct
    FROM (
        SELECT
            meter_id,
            harmonic_order,
            window_start,
            window_end,
            count(ratio_pct) AS samples,
            gb_percentile_95(CAST(ratio_pct AS DOUBLE)) AS p95
        FROM (
            SELECT
                meter_id,
                window_start,
                window_end,
                harmonic_order,
                -- The list holds 32-bit floats: 4 decimals are what they can tell apart here.
                TRY_CAST(ratio_pct AS DECIMAL(9, 4)) AS ratio_pct
            FROM (
                SELECT
                    meter_id,
                    window_start,
                    window_end,
                    unnest(range(2, 26)) AS harmonic_order,
                    unnest(array_slice(u_h, 1, 24)) AS ratio_pct
                FROM TUMBLE(meter_readings, ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
                WHERE cardinality(u_h) > 0 AND pq_flagged IS NOT TRUE
            ) u
        ) r
        GROUP BY meter_id, harmonic_order, window_start, window_end
    ) w
    JOIN meters m ON m.meter_id = w.meter_id
    WHERE w.samples >= $min_samples AND m.nominal_v IS NOT NULL
) d
