/*---
id          = "sec_export_rows"
kind        = "alert"
title       = "Account exported many customers within an hour"
title_zh    = "一小时内导出大量客户信息"
severity    = "critical"
entity      = "actor_id"
category    = "security"
unit        = "rows"
standard    = "GB/T 22239-2019"
clause      = "8.1.4.11"
owner       = "security"
description = """
At each export of customer data, adds up the rows that the account exported within the hour before, that export included,
and fires above its limit: `export_rows_per_h` of `accounts`, else `max_rows`. Programs that export by plan get their own
limit there. The standard protects personal data from use without right; the number is ours. An export without
`row_count` has an unknown size, not 0: while there is one and the others are within the limit, the rule says nothing
(`verdict` is `size_unknown`). Counted are exports whose kind of resource matches `resources` and which did not fail.
Resolves with the next export at which the hour is within the limit. Not seen: the same customer twice is two rows, and
slow exports over days, for which there is sec_activity_days.
"""
[params]
max_rows  = 100
resources = "^(customer|account|contract|bill)s?$"
---*/
WITH exported AS (
    -- A negative size is unknown, and the cap keeps the sum from overflowing.
    SELECT
        actor_id,
        ts,
        CASE WHEN row_count >= 0 THEN least(row_count, 1000000000) END AS row_count,
        resource_type,
        system,
        client_ip,
        ticket_id
    FROM sec_actions
    WHERE action = 'export' AND coalesce(outcome, 'success') = 'success' AND regexp_like(resource_type, $resources)
)
SELECT
    actor_id,
    ts,
    CASE WHEN rows_of_hour > row_limit THEN TRUE WHEN size_unknown = 0 THEN FALSE END AS firing,
    rows_of_hour AS measured,
    row_limit AS limit_high,
    'rows' AS unit,
    CASE
        WHEN rows_of_hour > row_limit THEN 'above' WHEN size_unknown > 0 THEN 'size_unknown' ELSE 'within'
    END AS verdict,
    size_unknown,
    exports,
    row_count,
    resource_type,
    system,
    client_ip,
    ticket_id
FROM (
    SELECT
        e.actor_id,
        e.ts,
        coalesce(sum(e.row_count) OVER w, 0) AS rows_of_hour,
        count(*) FILTER (WHERE e.row_count IS NULL) OVER w AS size_unknown,
        count(*) OVER w AS exports,
        coalesce(TRY_CAST(a.export_rows_per_h AS BIGINT), $max_rows) AS row_limit,
        e.row_count,
        e.resource_type,
        e.system,
        e.client_ip,
        e.ticket_id
    FROM exported e
    LEFT JOIN accounts a ON a.actor_id = e.actor_id
    WINDOW w AS (PARTITION BY e.actor_id ORDER BY e.ts RANGE INTERVAL '1 hour' PRECEDING)
) x
