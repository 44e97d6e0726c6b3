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
One occurrence for each local day (UTC+8) and account that did something with success while it was not in `accounts`, and
is not there at the end of that day either: it was made past the register, or its owner has left and it still works. The
standard asks that accounts which nobody needs are disabled in time. Failed logins of names that do not exist are left
out; see sec_login_spray. Not seen: a registered account in the hands of somebody else, and one that is entered later on
that day.
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
    FROM TUMBLE((
        SELECT s.actor_id, s.ts, s.system
        FROM sec_actions s
        LEFT JOIN accounts r ON r.actor_id = s.actor_id
        WHERE coalesce(s.outcome, 'success') = 'success' AND s.action <> 'heartbeat' AND r.actor_id IS NULL
    ), ts, INTERVAL '1 day', 'Asia/Shanghai')
    GROUP BY actor_id, window_start, window_end
) d
LEFT JOIN accounts a ON a.actor_id = d.actor_id
WHERE a.actor_id IS NULL
