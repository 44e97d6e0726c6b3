/*---
id          = "sec_account_shared"
kind        = "alert"
title       = "Person logged in from several places at once"
title_zh    = "同一人账号在多处同时登录"
severity    = "warning"
entity      = "actor_id"
category    = "security"
unit        = "places"
standard    = "GB/T 22239-2019"
clause      = "8.1.4.2"
owner       = "security"
description = """
At each login of an account that `accounts` gives to a person, counts the networks (see sec_actions) of its successful
logins within `within` before, that one included, and fires above `max_places`: several people share the account, or one
of them is not its owner. The standard asks that accounts are not shared. Resolves with the next login at which the count
is within. Not seen: people who share an account in one office, and logins without an address.
"""
[params]
within     = "20 minutes"
max_places = 1
---*/
SELECT
    actor_id,
    ts,
    places > $max_places AS firing,
    places AS measured,
    $max_places AS limit_high,
    'places' AS unit,
    $within AS within,
    client_ip,
    system,
    session_id
FROM (
    SELECT
        l.actor_id,
        l.ts,
        count(DISTINCT l.network) OVER (
            PARTITION BY l.actor_id ORDER BY l.ts RANGE INTERVAL $within PRECEDING
        ) AS places,
        l.client_ip,
        l.system,
        l.session_id
    FROM sec_actions l
    JOIN accounts a ON a.actor_id = l.actor_id
    WHERE l.action = 'login' AND l.outcome = 'success' AND l.network IS NOT NULL AND a.kind = 'person'
) p
