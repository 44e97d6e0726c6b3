/*---
id          = "op_version_mixed"
kind        = "alert"
title       = "Instances of a service run different versions"
title_zh    = "同一服务的实例版本不一致"
severity    = "warning"
entity      = "service"
category    = "operations"
unit        = "versions"
standard    = "internal"
owner       = "operations"
description = """
Takes the last version that each instance of a service reported within the hour, and fires if there is more than one: an
update stopped half way. Whether the version is the approved one says op_version_drift. A roll-out that takes up to an
hour may be told once; it resolves with the next hour in which all agree. Instances that report no version are left out
(`without_version` counts them). Not seen: instances that are not in `applications`, and services with one instance.
"""
---*/
SELECT
    service,
    window_start,
    window_end,
    count(DISTINCT version) > 1 AS firing,
    count(DISTINCT version) AS measured,
    1 AS limit_high,
    'versions' AS unit,
    count(*) AS instances,
    count(*) FILTER (WHERE version IS NULL) AS without_version,
    min(version) AS lowest_version,
    max(version) AS highest_version
FROM (
    SELECT a.service, i.app_id, i.window_start, i.window_end, i.version
    FROM (
        SELECT
            app_id,
            window_start,
            window_end,
            last_value(version ORDER BY ts) FILTER (WHERE version IS NOT NULL) AS version
        FROM TUMBLE(op_app_versions, ts, INTERVAL '1 hour')
        GROUP BY app_id, window_start, window_end
    ) i
    JOIN applications a ON a.app_id = i.app_id
) s
GROUP BY service, window_start, window_end
HAVING count(version) > 0
