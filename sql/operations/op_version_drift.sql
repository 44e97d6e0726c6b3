/*---
id          = "op_version_drift"
kind        = "alert"
title       = "Application runs another version than the approved one"
title_zh    = "应用版本与批准版本不一致"
severity    = "warning"
entity      = "app_id"
category    = "operations"
standard    = "internal"
owner       = "operations"
description = """
Compares the version that a heartbeat reports with the one that `applications` approves at that time, and fires if they
differ more than `grace` after the approved one became valid (until then the verdict is `rolling_out`, and the alert stays
as it is). Somebody updated without a change, or an update did not reach this instance. Resolves with the first heartbeat
that agrees. A heartbeat without a version, or an instance without an approved one, says nothing (`insufficient_data`).
Not seen: a changed program that reports the old number.
"""
params      = { grace = "1 day" }
---*/
SELECT
    app_id,
    ts,
    CASE verdict WHEN 'differs' THEN TRUE WHEN 'agrees' THEN FALSE END AS firing,
    verdict,
    version,
    approved_version,
    approved_since,
    service
FROM (
    SELECT
        app_id,
        ts,
        version,
        approved_version,
        approved_since,
        service,
        CASE
            WHEN version IS NULL OR approved_version IS NULL THEN 'insufficient_data'
            WHEN version = approved_version THEN 'agrees'
            WHEN ts - approved_since <= INTERVAL $grace THEN 'rolling_out'
            ELSE 'differs'
        END AS verdict
    FROM (
        SELECT
            v.app_id,
            v.ts,
            v.version,
            nullif(trim(CAST(a.version AS VARCHAR)), '') AS approved_version,
            a.valid_from AS approved_since,
            a.service
        FROM op_app_versions v
        JOIN applications a ON a.app_id = v.app_id
    ) j
) d
