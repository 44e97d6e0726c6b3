/*---
id          = "sec_secret_in_log"
kind        = "alert"
title       = "Audit event carries a secret"
title_zh    = "审计事件中含有密钥或口令"
severity    = "critical"
entity      = "system"
category    = "security"
standard    = "internal"
owner       = "security"
description = """
One occurrence for each access event about a password, key or token (`kinds`) that has a value before or after the change:
such values must never be recorded. The alert says only how long they are; the event itself lies in the raw table with
them, so change the secret, and mend the application that sent it. Values of `max_characters` or fewer are flags or
versions, not secrets. Not seen: secrets in other fields, or under other kinds of resource.
"""
[params]
kinds          = "^(password|secret|key|token|credential|certificate_key)s?$"
max_characters = 4
---*/
SELECT
    coalesce(system, 'unknown') AS system,
    ts,
    resource_type,
    resource_id,
    action,
    actor_id,
    character_length(old_value) AS old_characters,
    character_length(new_value) AS new_characters
FROM sec_actions
WHERE regexp_like(resource_type, $kinds)
    AND greatest(character_length(old_value), character_length(new_value)) > $max_characters
