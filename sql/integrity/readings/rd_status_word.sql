/*---
id          = "rd_status_word"
kind        = "alert"
title       = "Status word of the meter reports a fault"
title_zh    = "电能表状态字告警"
severity    = "warning"
entity      = ["meter_id", "condition"]
category    = "integrity"
standard    = "DL/T 645-2007"
clause      = "running status word 1"
owner       = "metering"
description = """
Looks at the bits of `status_word` that the reference table `status_bits` names: `bit` (0 is the lowest), `name`,
`severity`, and `source` for head ends that number them otherwise (empty: all). A bit that is set opens the alert of
that condition, one that is cleared resolves it; a row comes only when a bit has changed since the last status word of
the meter, or with the first one. Silence a condition by ending its row. The bits that come with the table are those of
the first status word of DL/T 645 and DL/T 698.45; check them against the meters in use.
Not seen: frames with a wrong checksum, which never become readings (their records are refused, see op_refused_records),
and a bit that was set and cleared between two readings.
"""
---*/
SELECT
    s.meter_id,
    b.name AS condition,
    s.ts,
    (s.status_word >> b.bit) & 1 = 1 AS firing,
    b.severity,
    b.bit,
    s.status_word,
    s.previous_word,
    b.standard AS bit_standard,
    b.edition AS bit_edition,
    b.clause AS bit_clause
FROM (
    SELECT
        meter_id,
        ts,
        source,
        status_word,
        lag(status_word) OVER (PARTITION BY meter_id ORDER BY ts) AS previous_word
    FROM meter_readings
    WHERE status_word IS NOT NULL
) s
JOIN status_bits b
    ON (coalesce(b.source, '') = '' OR b.source = s.source)
    AND b.bit BETWEEN 0 AND 62
    AND (s.status_word >> b.bit) & 1 <> (coalesce(s.previous_word, 0) >> b.bit) & 1
