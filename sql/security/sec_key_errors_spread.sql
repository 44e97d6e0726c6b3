/*---
id          = "sec_key_errors_spread"
kind        = "alert"
title       = "Many meters refuse keys within an hour"
title_zh    = "一小时内多块电能表密钥错误"
severity    = "critical"
entity      = "source"
category    = "security"
unit        = "meters"
standard    = "internal"
owner       = "security"
description = """
Counts the meters behind one source (head end) that recorded a key or security-module (ESAM) error within an hour (a
window ends every 15 minutes) and fires above `max_meters`: a key version was rolled out wrongly, or somebody tries keys
on many meters. Events without `source` are taken together as `unknown`. Resolves in the next window that has such an
error and is within the limit. Not seen: how many meters the source has; raise the number for large ones.
"""
[params]
key_codes  = "^(key_error|esam_error|auth_error)$"
max_meters = 5
---*/
SELECT
    source,
    window_start,
    window_end,
    meters > $max_meters AS firing,
    meters AS measured,
    $max_meters AS limit_high,
    'meters' AS unit,
    errors,
    first_meter_id
FROM (
    SELECT
        source,
        window_start,
        window_end,
        count(DISTINCT meter_id) AS meters,
        count(*) AS errors,
        min(meter_id) AS first_meter_id
    FROM HOP((
        SELECT meter_id, start_ts, coalesce(nullif(trim(source), ''), 'unknown') AS source
        FROM meter_events
        WHERE regexp_like(lower(trim(event_code)), $key_codes)
    ), start_ts, INTERVAL '15 minutes', INTERVAL '1 hour')
    GROUP BY source, window_start, window_end
) e
