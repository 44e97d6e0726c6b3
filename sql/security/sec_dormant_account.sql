/*---
id          = "sec_dormant_account"
kind        = "alert"
title       = "Account used after a long silence"
title_zh    = "长期未用的账号被使用"
severity    = "warning"
entity      = "actor_id"
category    = "security"
unit        = "days"
standard    = "GB/T 22239-2019"
clause      = "8.1.4.2"
owner       = "security"
description = """
One occurrence for the first successful action of an account after more than `dormant` without any: its owner may have
left, and somebody else found it. The standard asks that accounts which nobody needs are disabled in time; the number is
ours. Kept is one time for each account. Failed actions neither wake an account nor keep it awake. Not seen: an account
that was never used here, which is sec_unknown_account or new, and one that sleeps still.
"""
params      = { dormant = "90 days" }
---*/
SELECT
    actor_id,
    ts,
    round((extract(epoch FROM ts) - extract(epoch FROM previous_ts)) / 86400, 3) AS measured,
    'days' AS unit,
    $dormant AS dormant,
    previous_ts,
    action,
    system,
    client_ip
FROM (
    SELECT
        actor_id,
        ts,
        lag(ts) OVER (PARTITION BY actor_id ORDER BY ts) AS previous_ts,
        action,
        system,
        client_ip
    FROM sec_actions
    WHERE coalesce(outcome, 'success') = 'success'
) a
WHERE ts - previous_ts > INTERVAL $dormant
