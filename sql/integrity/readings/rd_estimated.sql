/*---
id          = "rd_estimated"
kind        = "alert"
title       = "Three readings in a row were estimated"
title_zh    = "连续估读"
severity    = "warning"
entity      = ["meter_id", "reading_kind"]
category    = "integrity"
standard    = "internal"
owner       = "metering"
description = """
Fires when three consecutive readings of a meter and kind carry a quality code that fits `estimated`, a regular
expression. Codes of IEC 61968-9 are system.category.index; category 8 is estimated, whichever system says so. Where a
head end marks estimates otherwise, change the expression. Bills made of estimates pile up an error that nobody sees.
Resolves with a reading that is not estimated; one or two estimates say nothing. A reading without quality codes counts
as not estimated. Event records are left out.
Not seen: values that were estimated without being marked, and gaps between the three (see rd_gap).
"""
params      = { estimated = "^[0-9]+[.]8[.]" }
---*/
SELECT
    meter_id,
    ts,
    reading_kind,
    CASE
        WHEN estimates = 3 THEN true
        WHEN NOT estimated THEN false
    END AS firing,
    estimates AS measured,
    2 AS limit_high,
    codes
FROM (
    SELECT
        meter_id,
        ts,
        coalesce(reading_kind, 'interval') AS reading_kind,
        coalesce(array_to_string(quality_codes, ' '), '') AS codes,
        coalesce(regexp_like(array_to_string(quality_codes, chr(10)), $estimated, 'm'), false) AS estimated,
        count(*) FILTER (WHERE regexp_like(array_to_string(quality_codes, chr(10)), $estimated, 'm')) OVER (
            PARTITION BY meter_id, coalesce(reading_kind, 'interval') ORDER BY ts ROWS 2 PRECEDING
        ) AS estimates
    FROM meter_readings
    WHERE coalesce(reading_kind, 'interval') <> 'event'
) r
