/*---
id          = "sec_login_off_hours"
kind        = "alert"
title       = "Login outside the working hours of the account"
title_zh    = "账号在工作时间之外登录"
severity    = "info"
version     = "1.1"
entity      = "actor_id"
category    = "security"
standard    = "internal"
owner       = "security"
description = """
One occurrence for each successful login of a person outside the time that `accounts` gives the account: not on one of
the days `work_days` (1 is Monday, 7 Sunday), or not from `work_from_h` up to, not including, `work_to_h`, in the time
zone `zone`. Hours may go over midnight (20 to 8); the day is then that of the login. An account without both hours is
judged by its days only, one without days by its hours only, one with neither not at all; nor are accounts that are not
registered or belong to programs. Not seen: public holidays, and work in a session that was opened in time.
"""
params      = { zone = "Asia/Shanghai" }
---*/
SELECT actor_id, ts, local_day, local_hour, work_days, work_from_h, work_to_h, client_ip, system, session_id
FROM (
    SELECT
        l.actor_id,
        l.ts,
        CAST(extract(isodow FROM l.ts AT TIME ZONE $zone) AS BIGINT) AS local_day,
        CAST(extract(hour FROM l.ts AT TIME ZONE $zone) AS BIGINT) AS local_hour,
        nullif(CAST(a.work_days AS VARCHAR), '') AS work_days,
        TRY_CAST(a.work_from_h AS BIGINT) AS work_from_h,
        TRY_CAST(a.work_to_h AS BIGINT) AS work_to_h,
        l.client_ip,
        l.system,
        l.session_id
    FROM sec_actions l
    JOIN accounts a ON a.actor_id = l.actor_id
    WHERE l.action = 'login' AND l.outcome = 'success' AND a.kind = 'person'
) o
WHERE strpos(work_days, CAST(local_day AS VARCHAR)) = 0
    OR CASE
        WHEN work_from_h IS NULL OR work_to_h IS NULL THEN FALSE
        WHEN work_from_h <= work_to_h THEN local_hour < work_from_h OR local_hour >= work_to_h
        ELSE local_hour < work_from_h AND local_hour >= work_to_h
    END
