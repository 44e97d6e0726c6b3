/*---
id          = "sec_shared_session"
kind        = "alert"
title       = "One session used by several accounts or from several places"
title_zh    = "会话被多个账号或多处使用"
severity    = "critical"
entity      = "session_id"
category    = "security"
unit        = "places"
standard    = "internal"
owner       = "security"
description = """
Looks at each session in 30 minutes (a window ends every 10) and fires if more than one account, or more than
`max_places` networks (see sec_actions), used it: a session token was stolen or handed on. `accounts` and `places` are the
numbers. Resolves in the next window with actions of that session that is within. A phone that leaves the office network
changes its place once: raise `max_places` where people work so. Not seen: events without `session_id`; a token that is
used from the same network as before.
"""
params      = { max_places = 1 }
---*/
SELECT
    session_id,
    window_start,
    window_end,
    accounts > 1 OR places > $max_places AS firing,
    greatest(accounts, places) AS measured,
    $max_places AS limit_high,
    accounts,
    places,
    first_account,
    last_account,
    first_network,
    last_network,
    actions
FROM (
    SELECT
        session_id,
        window_start,
        window_end,
        count(DISTINCT actor_id) AS accounts,
        count(DISTINCT network) AS places,
        min(actor_id) AS first_account,
        max(actor_id) AS last_account,
        min(network) AS first_network,
        max(network) AS last_network,
        count(*) AS actions
    FROM HOP(sec_actions, ts, INTERVAL '10 minutes', INTERVAL '30 minutes')
    WHERE session_id IS NOT NULL
    GROUP BY session_id, window_start, window_end
) s
