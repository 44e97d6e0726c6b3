/*---
id          = "sec_login_new_address"
kind        = "alert"
title       = "Login from an address that the account did not use before"
title_zh    = "账号从未使用过的地址登录"
severity    = "warning"
entity      = ["actor_id", "network"]
category    = "security"
standard    = "internal"
owner       = "security"
description = """
One occurrence for a successful login from a network (see sec_actions) from which the account did not log in within
`within` before, if it logged in at least `known_logins` times from elsewhere in that time; so accounts that are new here
say nothing. A person who travels looks alike: compare with sec_login_off_hours and sec_account_shared. Logins without an
address are not judged. Not seen: an attacker within the usual network, and addresses last used longer ago than `within`,
which are told again.
"""
[params]
within       = "90 days"
known_logins = 5
---*/
SELECT actor_id, network, ts, client_ip, logins_before, $within AS within, system, session_id
FROM (
    SELECT
        actor_id,
        network,
        ts,
        client_ip,
        system,
        session_id,
        count(*) OVER (
            PARTITION BY actor_id, network ORDER BY ts
            RANGE BETWEEN INTERVAL $within PRECEDING AND INTERVAL '1 microsecond' PRECEDING
        ) AS from_here_before,
        count(*) OVER (
            PARTITION BY actor_id ORDER BY ts
            RANGE BETWEEN INTERVAL $within PRECEDING AND INTERVAL '1 microsecond' PRECEDING
        ) AS logins_before
    FROM sec_actions
    WHERE action = 'login' AND outcome = 'success' AND network IS NOT NULL
) l
WHERE from_here_before = 0 AND logins_before >= $known_logins
