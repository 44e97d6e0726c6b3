/*---
id          = "sec_unknown_account"
kind        = "alert"
title       = "Action of an account that is not registered"
title_zh    = "未登记账号的操作"
severity    = "warning"
entity      = "actor_id"
category    = "security"
standard    = "GB/T 22239-2019"
clause      = "8.1.4.2"
owner       = "security"
description = """
One occurrence for each local day (UTC+8) and account that did something with success and is not in `accounts` at the end
of that day: it was made past the register, or its owner has left and it still works. The standard asks that accounts
which nobody needs are disabled in time. Failed logins of names that do not exist are left out; see sec_login_spray.
Not seen: a registered account in the hands of somebody else, and one that was taken out of the register and back on one day.
"""
---*/
SELECT d.actor_id, d.window_start, d.window_end, d.actions, d.first_ts, d.last_ts, d.systems
FROM (
    SELECT
        actor_id,
        window_start,
        window_end,
        count(*) AS actions,
        min(ts) AS first_ts,
        max(ts) AS last_ts,
        count(DISTINCT system) AS systems
    FROM TUMBLE(sec_actions, ts, INTERVAL '1 day', 'Asia/Shanghai')
    WHERE coalesce(outcome, 'success') = 'success' AND action <> 'heartbeat'
    GROUP BY actor_id, window_start, window_end
) d
LEFT JOIN accounts a ON a.actor_id = d.actor_id
WHERE a.actor_id IS NULL
