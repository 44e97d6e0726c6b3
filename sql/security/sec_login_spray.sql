/*---
id          = "sec_login_spray"
kind        = "alert"
title       = "One address fails to log in on many accounts"
title_zh    = "同一地址对多个账号登录失败"
severity    = "critical"
entity      = "client_ip"
category    = "security"
unit        = "accounts"
standard    = "GB/T 22239-2019"
clause      = "8.1.4.1"
owner       = "security"
description = """
Counts the accounts on which logins from one address failed in 30 minutes (a window ends every 5) and fires above
`max_accounts`: one password is tried on many accounts, and no single account is locked. `succeeded` says on how many
accounts a login from there went well in the same time, and those are lost. The standard asks for a limit on failed
logins; the number is ours. Resolves in the next window in which the address tries to log in and stays within.
A gateway that hides many people behind one address looks alike: give its people longer, or raise the number.
Not seen: logins without an address, and an attack from many addresses.
"""
params      = { max_accounts = 5 }
---*/
SELECT
    client_ip,
    window_start,
    window_end,
    failed > $max_accounts AS firing,
    failed AS measured,
    $max_accounts AS limit_high,
    'accounts' AS unit,
    succeeded,
    attempts
FROM (
    SELECT
        client_ip,
        window_start,
        window_end,
        count(DISTINCT CASE WHEN outcome IN ('failure', 'denied') THEN actor_id END) AS failed,
        count(DISTINCT CASE WHEN outcome = 'success' THEN actor_id END) AS succeeded,
        count(*) AS attempts
    FROM HOP(sec_actions, ts, INTERVAL '5 minutes', INTERVAL '30 minutes')
    WHERE action = 'login' AND client_ip IS NOT NULL
    GROUP BY client_ip, window_start, window_end
) a
