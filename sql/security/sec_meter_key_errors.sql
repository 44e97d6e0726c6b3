/*---
id          = "sec_meter_key_errors"
kind        = "alert"
title       = "Meter refused keys again and again"
title_zh    = "电能表密钥或ESAM认证多次错误"
severity    = "warning"
entity      = "meter_id"
category    = "security"
unit        = "errors"
standard    = "internal"
owner       = "security"
description = """
Counts the key or security-module (ESAM) errors that a meter recorded within `within` before each event of it, that one
included, and fires above `max_errors`; `key_codes` says which codes these are. Somebody talks to the meter with a wrong
key, or its keys were not updated with the others. Resolves with the next event of any kind at which the count is within
the limit. An event that is delivered twice counts twice. Not seen: a meter that no longer answers at all. Many meters at
once are sec_key_errors_spread.
"""
[params]
key_codes  = "^(key_error|esam_error|auth_error)$"
within     = "1 day"
max_errors = 3
---*/
SELECT
    meter_id,
    start_ts,
    errors > $max_errors AS firing,
    errors AS measured,
    $max_errors AS limit_high,
    'errors' AS unit,
    $within AS within,
    event_code,
    source
FROM (
    SELECT
        meter_id,
        start_ts,
        count(*) FILTER (WHERE regexp_like(lower(trim(event_code)), $key_codes)) OVER (
            PARTITION BY meter_id ORDER BY start_ts RANGE INTERVAL $within PRECEDING
        ) AS errors,
        event_code,
        source
    FROM meter_events
) e
