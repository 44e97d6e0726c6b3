/*---
id          = "sec_login_after_failures"
kind        = "alert"
title       = "Login succeeds after many failures"
title_zh    = "多次失败后登录成功"
severity    = "critical"
entity      = "actor_id"
category    = "security"
unit        = "logins"
standard    = "GB/T 22239-2019"
clause      = "8.1.4.1"
owner       = "security"
description = """
One occurrence for each successful login that ends a run of failed ones and has more than `max_failures` of them within
`within` before it: the password may have been guessed. Ask the person, and lock the account until then. Failed logins
of the same instant count as before it. Only the first success after the failures is told. Logins without outcome are
left out. Not seen: a success on another account with the same password, and failures longer ago.
"""
[params]
within       = "30 minutes"
max_failures = 4
---*/
SELECT
    actor_id,
    ts,
    failures AS measured,
    $max_failures AS limit_high,
    'logins' AS unit,
    $within AS within,
    first_ts,
    system,
    client_ip
FROM (
    SELECT
        actor_id,
        ts,
        outcome,
        system,
        client_ip,
        lag(outcome) OVER (PARTITION BY actor_id ORDER BY ts) AS previous_outcome,
        count(*) FILTER (WHERE outcome <> 'success') OVER w AS failures,
        min(ts) OVER w AS first_ts
    FROM sec_actions
    WHERE action = 'login' AND outcome IN ('success', 'failure', 'denied')
    WINDOW w AS (PARTITION BY actor_id ORDER BY ts RANGE INTERVAL $within PRECEDING)
) l
WHERE outcome = 'success' AND previous_outcome <> 'success' AND failures > $max_failures
