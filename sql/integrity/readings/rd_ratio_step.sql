/*---
id          = "rd_ratio_step"
kind        = "alert"
title       = "Load of a meter stepped by its transformer ratio when that changed"
title_zh    = "负荷随互感器变比突变"
severity    = "critical"
entity      = "meter_id"
category    = "integrity"
unit        = "kW"
standard    = "internal"
owner       = "metering"
description = """
On the first whole local day with another product of the ratios in `meter_installations` than before, compares the mean
power of the day (without sign) with the median of the 7 days before. What a customer draws does not change with the
transformers. If the load stepped by the same factor as the ratio, or by its inverse, within `tolerance_pct`, the ratio
was entered but not built, or built but not entered, and bills are wrong by that factor. `ratio_factor` is the new
product over the old one, `load_factor` the new load over the old one. A change of the ratio by less than `min_factor`
says nothing, as loads vary that much, nor does one with fewer than `min_days` days before it. Any day without a change
is good and resolves, so the alert lasts a day.
Power must be that of the primary side, as in the other rules. Days are those of UTC+8; the day within which the ratio
changes is left out.
Not seen: a change of transformers that is in no registry.
"""
params      = { tolerance_pct = 20.0, min_factor = 1.5, min_days = 3 }
---*/
WITH rated AS (
    SELECT
        meter_id,
        window_start,
        window_end,
        CAST(avg(abs(TRY_CAST(p_kw AS DECIMAL(15, 6)))) AS DECIMAL(18, 6)) AS mean_kw,
        max(valid_ratio) AS ratio
    FROM TUMBLE((
        SELECT
            r.meter_id,
            r.ts,
            r.p_kw,
            CAST(TRY_CAST(i.ct_ratio AS DECIMAL(10, 3)) * TRY_CAST(i.pt_ratio AS DECIMAL(10, 3)) AS DECIMAL(20, 6)) AS valid_ratio
        FROM meter_readings r
        JOIN meter_installations i ON i.meter_id = r.meter_id
        WHERE r.p_kw IS NOT NULL
    ), ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    GROUP BY meter_id, window_start, window_end
    HAVING min(valid_ratio) = max(valid_ratio)
),
steps AS (
    SELECT
        meter_id,
        window_start,
        window_end,
        mean_kw,
        ratio,
        lag(ratio) OVER (PARTITION BY meter_id ORDER BY window_start) AS old_ratio,
        median(mean_kw) OVER w AS usual_kw,
        count(mean_kw) OVER w AS days_before
    FROM rated
    WINDOW w AS (
        PARTITION BY meter_id ORDER BY window_start
        RANGE BETWEEN INTERVAL '7 days' PRECEDING AND INTERVAL '1 day' PRECEDING
    )
)
SELECT
    meter_id,
    window_start,
    window_end,
    CASE
        WHEN ratio = old_ratio THEN false
        WHEN days_before < $min_days OR usual_kw = 0 OR greatest(ratio_factor, 1 / ratio_factor) < $min_factor THEN NULL
        ELSE abs(load_factor / ratio_factor - 1) * 100 <= $tolerance_pct
            OR abs(load_factor * ratio_factor - 1) * 100 <= $tolerance_pct
    END AS firing,
    mean_kw AS measured,
    'kW' AS unit,
    usual_kw,
    round(load_factor, 6) AS load_factor,
    round(ratio_factor, 6) AS ratio_factor,
    old_ratio,
    ratio,
    days_before
FROM (
    SELECT
        *,
        CAST(mean_kw AS DOUBLE) / nullif(CAST(usual_kw AS DOUBLE), 0) AS load_factor,
        CAST(ratio AS DOUBLE) / nullif(CAST(old_ratio AS DOUBLE), 0) AS ratio_factor
    FROM steps
) f
WHERE old_ratio IS NOT NULL AND ratio > 0 AND old_ratio > 0
