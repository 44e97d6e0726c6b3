/*---
id            = "pq_low_power_factor"
kind          = "alert"
title         = "Power factor of an hour below 0.85"
severity      = "info"
entity        = "meter_id"
standard      = "internal"
category      = "pq"
owner         = "power-quality"
resolve_after = 2
description   = """
Power factor of the active and reactive energy of an hour; reactive energy counts in both directions. Only readings above
`min_power_kw` count, and an hour with fewer than `min_samples` of them is not judged (`firing` is null), so an open alert
stays. `low_samples` of `samples` readings were below `sample_limit` on their own.
"""
params        = { limit = 0.85, sample_limit = 0.9, min_power_kw = 0.1, min_samples = 30 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CASE WHEN samples >= $min_samples THEN power_factor < $limit END AS firing,
    power_factor AS measured,
    $limit AS limit_low,
    samples,
    low_samples
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        samples,
        low_samples,
        round(active_kw / sqrt(active_kw * active_kw + reactive_kvar * reactive_kvar), 6) AS power_factor
    FROM (
        SELECT
            meter_id,
            window_start,
            window_end,
            count(*) AS samples,
            count(*) FILTER (WHERE round(p_kw / sqrt(p_kw * p_kw + q_kvar * q_kvar), 9) < $sample_limit) AS low_samples,
            CAST(sum(TRY_CAST(p_kw AS DECIMAL(18, 6))) AS DOUBLE) AS active_kw,
            CAST(sum(TRY_CAST(abs(q_kvar) AS DECIMAL(18, 6))) AS DOUBLE) AS reactive_kvar
        FROM TUMBLE(meter_readings, ts, INTERVAL '1 hour')
        WHERE p_kw > $min_power_kw AND q_kvar IS NOT NULL
        GROUP BY meter_id, window_start, window_end
    ) w
    WHERE active_kw > 0
) f
