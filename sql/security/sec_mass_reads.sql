/*---
id          = "sec_mass_reads"
kind        = "alert"
title       = "Account looked at very many customers within an hour"
title_zh    = "一小时内查看大量客户信息"
severity    = "warning"
entity      = "actor_id"
category    = "security"
unit        = "customers"
standard    = "GB/T 22239-2019"
clause      = "8.1.4.11"
owner       = "security"
description = """
Counts the customers whose records an account opened within an hour (a window ends every 15 minutes): different
`resource_id`, plus the rows of lists, which have a `row_count` and no `resource_id`. Fires above `reads_per_h` of
`accounts`, else `max_customers`: somebody copies the register by hand or by a script. The standard protects personal
data from use without right; the number is ours. Counted are reads whose kind of resource matches `resources` and which
did not fail. Resolves in the next window with reads that is within the limit. Not seen: reads that the application does
not record one by one, and exports, which are sec_export_rows.
"""
[params]
max_customers = 200
resources     = "^(customer|account|contract|bill)s?$"
---*/
SELECT
    w.actor_id,
    w.window_start,
    w.window_end,
    w.customers > coalesce(TRY_CAST(a.reads_per_h AS BIGINT), $max_customers) AS firing,
    w.customers AS measured,
    coalesce(TRY_CAST(a.reads_per_h AS BIGINT), $max_customers) AS limit_high,
    'customers' AS unit,
    w.reads,
    w.addresses
FROM (
    SELECT
        actor_id,
        window_start,
        window_end,
        count(DISTINCT resource_id)
            + coalesce(sum(least(row_count, 1000000000)) FILTER (WHERE resource_id IS NULL AND row_count > 0), 0) AS customers,
        count(*) AS reads,
        count(DISTINCT client_ip) AS addresses
    FROM HOP(sec_actions, ts, INTERVAL '15 minutes', INTERVAL '1 hour')
    WHERE action = 'read' AND coalesce(outcome, 'success') = 'success' AND regexp_like(resource_type, $resources)
    GROUP BY actor_id, window_start, window_end
) w
LEFT JOIN accounts a ON a.actor_id = w.actor_id
