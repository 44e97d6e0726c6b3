/*---
id          = "sec_actions"
kind        = "view"
title       = "Access events in one spelling"
title_zh    = "统一书写的访问事件"
category    = "security"
standard    = "internal"
owner       = "security"
description = """
The rows of `access_events` as the other security rules read them: action, outcome and kind of resource in lower case,
empty texts as NULL, and `network`, the address without what matches `host_part`. So two addresses of one office
(the same first three numbers of an IPv4 address) are one place; an IPv6 address stays as it is.
"""
params      = { host_part = "[.][0-9]{1,3}$" }
---*/
SELECT
    actor_id,
    ts,
    lower(trim(action)) AS action,
    lower(nullif(trim(outcome), '')) AS outcome,
    nullif(trim(reason), '') AS reason,
    nullif(trim(system), '') AS system,
    lower(nullif(trim(resource_type), '')) AS resource_type,
    nullif(trim(resource_id), '') AS resource_id,
    nullif(trim(actor_role), '') AS actor_role,
    nullif(trim(target_role), '') AS target_role,
    nullif(trim(client_ip), '') AS client_ip,
    regexp_replace(nullif(trim(client_ip), ''), $host_part, '') AS network,
    nullif(trim(session_id), '') AS session_id,
    row_count,
    nullif(trim(ticket_id), '') AS ticket_id,
    nullif(trim(old_value), '') AS old_value,
    nullif(trim(new_value), '') AS new_value,
    nullif(trim(source), '') AS source,
    seq_no,
    event_id
FROM access_events
