/*---
id          = "rd_ratio_mismatch"
kind        = "alert"
title       = "Transformer ratio of a reading differs from the registry"
title_zh    = "互感器变比与档案不符"
severity    = "critical"
entity      = ["meter_id", "transformer"]
category    = "integrity"
unit        = "1"
standard    = "internal"
owner       = "metering"
description = """
Compares `ct_ratio` and `pt_ratio` of a reading with those of `meter_installations` that are valid at its time, each an
alert of its own (`transformer` is `ct` or `pt`). Any difference fires, as bills are made with the one or the other: an
exchange of transformers that was entered late, or not at all. Resolves with the first reading that agrees.
Readings without a ratio and meters without a row or without a ratio in it are not judged.
Not seen: transformers that were exchanged without anyone telling either side (see rd_ratio_step).
"""
---*/
SELECT
    meter_id,
    transformer,
    ts,
    ratio <> registered_ratio AS firing,
    ratio AS measured,
    registered_ratio AS limit_low,
    registered_ratio AS limit_high,
    '1' AS unit
FROM (
    SELECT
        meter_id,
        ts,
        transformer,
        CASE transformer WHEN 'ct' THEN ct_ratio ELSE pt_ratio END AS ratio,
        CASE transformer WHEN 'ct' THEN registered_ct ELSE registered_pt END AS registered_ratio
    FROM (
        SELECT *, unnest(['ct', 'pt']) AS transformer
        FROM (
            SELECT
                r.meter_id,
                r.ts,
                TRY_CAST(r.ct_ratio AS DECIMAL(12, 4)) AS ct_ratio,
                TRY_CAST(r.pt_ratio AS DECIMAL(12, 4)) AS pt_ratio,
                TRY_CAST(i.ct_ratio AS DECIMAL(12, 4)) AS registered_ct,
                TRY_CAST(i.pt_ratio AS DECIMAL(12, 4)) AS registered_pt
            FROM meter_readings r
            JOIN meter_installations i ON i.meter_id = r.meter_id
            WHERE r.ct_ratio IS NOT NULL OR r.pt_ratio IS NOT NULL
        ) j
    ) t
) c
WHERE ratio IS NOT NULL AND registered_ratio IS NOT NULL
