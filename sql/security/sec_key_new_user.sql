/*---
id          = "sec_key_new_user"
kind        = "alert"
title       = "Key used by an account that did not use it before"
title_zh    = "密钥被新的账号使用"
severity    = "warning"
entity      = ["actor_id", "key_id"]
category    = "security"
standard    = "internal"
owner       = "security"
description = """
One occurrence for a `key_use` of a key (`resource_id`) by an account that did not use that key within `within` before, if
the key was used at least `known_uses` times in that time, so that a new key says nothing. Keys for meters belong to few
programs; another user of one is a new release, or somebody who found it. Critical if the use succeeded and has no ticket.
Not seen: uses that the key store does not tell, and the usual program in the wrong hands.
"""
[params]
within     = "90 days"
known_uses = 5
---*/
SELECT
    actor_id,
    key_id,
    ts,
    CASE WHEN coalesce(outcome, 'success') = 'success' AND ticket_id IS NULL THEN 'critical' ELSE 'warning' END AS severity,
    outcome,
    ticket_id,
    uses_before,
    $within AS within,
    system,
    client_ip
FROM (
    SELECT
        actor_id,
        resource_id AS key_id,
        ts,
        outcome,
        ticket_id,
        system,
        client_ip,
        count(*) OVER (
            PARTITION BY actor_id, resource_id ORDER BY ts
            RANGE BETWEEN INTERVAL $within PRECEDING AND INTERVAL '1 microsecond' PRECEDING
        ) AS own_uses_before,
        count(*) OVER (
            PARTITION BY resource_id ORDER BY ts
            RANGE BETWEEN INTERVAL $within PRECEDING AND INTERVAL '1 microsecond' PRECEDING
        ) AS uses_before
    FROM sec_actions
    WHERE action = 'key_use' AND resource_id IS NOT NULL
) k
WHERE own_uses_before = 0 AND uses_before >= $known_uses
