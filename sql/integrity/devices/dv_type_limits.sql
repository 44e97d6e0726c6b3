/*---
id          = "dv_type_limits"
kind        = "alert"
title       = "Value of a device beyond the limit of its type"
title_zh    = "设备指标超出同类设备限值"
severity    = "warning"
entity      = ["device_id", "metric"]
category    = "device"
standard    = "internal"
owner       = "operations"
description = """
Judges each value of dv_values against the row of the reference table `device_type_limits` for the type of the device and
the metric that is valid at its time: processor, memory, disk, temperature, clock, signal, packet loss and, as named
metrics, processes, error rates, replication, backups, certificates, links, fans and supplies. A value equal to a limit is
inside; an empty limit is no limit.
Fires when all values of at least `hold_s` seconds were beyond the limit, from the first of them to the newest; a pause
of more than `pause_s` seconds between two values begins anew. Critical beyond `critical_low` or `critical_high`, else the
`severity` of the row. Resolves with the first value within `clear_low` and `clear_high` (where they are empty, within the
limits); what lies between says nothing, so that a value near the limit does not open one alert after another.
Silence or tune it by the rows of the table; a limit of one single device is the matter of dv_out_of_range.
Not seen: what happens between two samples, devices of a type that has no row, and values that stop coming (see dv_silent
and dv_series_missing).
"""
---*/
SELECT
    device_id,
    metric,
    ts,
    CASE
        WHEN beyond AND held_s >= hold_s THEN true
        WHEN NOT beyond
            AND coalesce(value >= clear_low, true)
            AND coalesce(value <= clear_high, true) THEN false
    END AS firing,
    CASE
        WHEN coalesce(value > critical_high, false) OR coalesce(value < critical_low, false) THEN 'critical'
        ELSE severity
    END AS severity,
    value AS measured,
    limit_low,
    limit_high,
    unit,
    CASE WHEN beyond THEN since END AS beyond_since,
    hold_s,
    device_type,
    limit_standard,
    limit_edition,
    limit_clause
FROM (
    SELECT *, TRY_CAST(extract(epoch FROM ts) - extract(epoch FROM since) AS DECIMAL(15, 3)) AS held_s
    FROM (
        -- The newest first value beyond the limit; it means nothing while a value is inside.
        SELECT *, max(began) OVER (PARTITION BY device_id, metric ORDER BY ts) AS since
        FROM (
            SELECT
                *,
                CASE
                    WHEN beyond
                        AND NOT coalesce(
                            lag(beyond) OVER (PARTITION BY device_id, metric ORDER BY ts)
                                AND NOT coalesce(
                                    extract(epoch FROM ts)
                                        - extract(epoch FROM lag(ts) OVER (PARTITION BY device_id, metric ORDER BY ts))
                                        > pause_s,
                                    false
                                ),
                            false
                        ) THEN ts
                END AS began
            FROM (
                SELECT
                    v.device_id,
                    v.metric,
                    v.ts,
                    v.value,
                    v.device_type,
                    TRY_CAST(l.limit_low AS DECIMAL(24, 6)) AS limit_low,
                    TRY_CAST(l.limit_high AS DECIMAL(24, 6)) AS limit_high,
                    TRY_CAST(l.clear_low AS DECIMAL(24, 6)) AS clear_low,
                    TRY_CAST(l.clear_high AS DECIMAL(24, 6)) AS clear_high,
                    TRY_CAST(l.critical_low AS DECIMAL(24, 6)) AS critical_low,
                    TRY_CAST(l.critical_high AS DECIMAL(24, 6)) AS critical_high,
                    coalesce(TRY_CAST(l.hold_s AS DECIMAL(15, 3)), 0) AS hold_s,
                    TRY_CAST(l.pause_s AS DECIMAL(15, 3)) AS pause_s,
                    l.severity,
                    l.unit,
                    l.standard AS limit_standard,
                    l.edition AS limit_edition,
                    l.clause AS limit_clause,
                    coalesce(v.value < TRY_CAST(l.limit_low AS DECIMAL(24, 6)), false)
                        OR coalesce(v.value > TRY_CAST(l.limit_high AS DECIMAL(24, 6)), false) AS beyond
                FROM dv_values v
                JOIN device_type_limits l ON l.device_type = v.device_type AND l.metric = v.metric
            ) j
        ) b
    ) s
) h
