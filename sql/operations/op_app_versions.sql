/*---
id          = "op_app_versions"
kind        = "view"
title       = "Version that each application instance reports"
title_zh    = "应用实例上报的版本"
category    = "operations"
entity      = "app_id"
standard    = "internal"
owner       = "operations"
description = """
One row per heartbeat: `version` is the label `version` of the sample, else its `firmware`, else NULL.
"""
---*/
SELECT
    device_id AS app_id,
    ts,
    nullif(trim(coalesce(tags['version'], firmware)), '') AS version
FROM device_metrics
WHERE metric_name = 'heartbeat'
