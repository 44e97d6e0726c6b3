/*---
id          = "sec_login_failures"
kind        = "alert"
title       = "Many failed logins of one account"
title_zh    = "同一账号多次登录失败"
severity    = "warning"
entity      = "actor_id"
category    = "security"
unit        = "logins"
standard    = "GB/T 22239-2019"
clause      = "8.1.4.1"
owner       = "security"
description = """
At each login of an account, counts its failed logins within `within` before, that one included, and fires above
`max_failures`; critical above `critical_failures`. Somebody guesses a password, or a program has an old one. The
standard asks for a limit on failed logins; the numbers are ours. Resolves with the next login at which the count is
within the limit, so an account that nobody touches any more stays open: give the account back, or let it be renotified.
A login without outcome is counted as neither, and while there is one the rule does not resolve. A record that is
delivered twice counts twice. Not seen: guesses slower than the limit, and one password tried on many accounts, which is
sec_login_spray.
"""
[params]
within            = "10 minutes"
max_failures      = 5
critical_failures = 20
---*/
SELECT
    actor_id,
    ts,
    CASE WHEN failures > $max_failures THEN TRUE WHEN without_outcome = 0 THEN FALSE END AS firing,
    CASE WHEN failures > $critical_failures THEN 'critical' ELSE 'warning' END AS severity,
    failures AS measured,
    $max_failures AS limit_high,
    'logins' AS unit,
    without_outcome,
    $within AS within,
    outcome,
    reason,
    system,
    client_ip
FROM (
    SELECT
        actor_id,
        ts,
        count(*) FILTER (WHERE outcome IN ('failure', 'denied')) OVER w AS failures,
        count(*) FILTER (WHERE outcome IS NULL) OVER w AS without_outcome,
        outcome,
        reason,
        system,
        client_ip
    FROM sec_actions
    WHERE action = 'login'
    WINDOW w AS (PARTITION BY actor_id ORDER BY ts RANGE INTERVAL $within PRECEDING)
) l
