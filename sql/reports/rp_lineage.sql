/*---
id          = "rp_lineage"
title       = "From which raw records, by which version of which rule, did the newest alerts come?"
title_zh    = "告警溯源:规则版本与原始记录位点"
description = """
For auditors. The 100 newest alert records, and for each the events of its entity within its window (without a window: at its instant), as they lie
in the raw tables: stream, topic (or file), partition, lowest and highest offset, how many, and how many came after the default delay
of two minutes (`late`), which a rule without `late = "update"` has not seen. One row per alert, stream, topic and partition. Fetch the records
themselves with these offsets, or see `wattline alerts explain` with the `alert_id`, which also shows the columns and what the rule means.
`source` is what the alert itself says (topic/partition/offset/index), for rules without a window.
`events` 0: nothing under that name in a raw table of the job. That is so for groups (feeder, vendor), for streams that are not kept, and for
the silence of somebody, which no event shows. Found are meters, devices, cases, bills and accounts by the first value of the entity. Rules
that look further back than their window (registers, medians of weeks) also read earlier events. Rows of tables carry no version of their rule:
the manifests of the archive do, by time.
"""
owner       = "operations"
duckdb      = true
---*/
WITH newest AS (
    SELECT
        alert_id,
        event_ts,
        status,
        severity,
        rule_id,
        rule_version,
        standard,
        entity_id,
        split_part(entity_id, '|', 1) AS first_id,
        window_start,
        window_end,
        explanation,
        source
    FROM alerts
    ORDER BY event_ts DESC, alert_id
    LIMIT 100
),
events AS (
    SELECT 'meter_readings' AS stream, meter_id AS id, ts AS event_at, _topic, _partition, _offset, _lateness_ms FROM meter_readings
    UNION ALL
    SELECT 'meter_events', meter_id, start_ts, _topic, _partition, _offset, _lateness_ms FROM meter_events
    UNION ALL
    SELECT 'device_metrics', device_id, ts, _topic, _partition, _offset, _lateness_ms FROM device_metrics
    UNION ALL
    SELECT 'business_transactions', case_id, event_ts, _topic, _partition, _offset, _lateness_ms FROM business_transactions
    UNION ALL
    SELECT 'business_transactions', bill_id, event_ts, _topic, _partition, _offset, _lateness_ms FROM business_transactions WHERE bill_id <> case_id
    UNION ALL
    SELECT 'business_transactions', account_id, event_ts, _topic, _partition, _offset, _lateness_ms FROM business_transactions
    UNION ALL
    SELECT 'business_transactions', meter_id, event_ts, _topic, _partition, _offset, _lateness_ms FROM business_transactions
),
places AS (
    SELECT
        n.alert_id,
        e.stream,
        e._topic AS topic,
        e._partition AS kafka_partition,
        min(e._offset) AS first_offset,
        max(e._offset) AS last_offset,
        count(*) AS events,
        count(*) FILTER (WHERE e._lateness_ms > 120000) AS late,
        min(e.event_at) AS first_event_ts,
        max(e.event_at) AS last_event_ts
    FROM newest n
    JOIN events e ON e.id = n.first_id
        AND e.event_at >= coalesce(n.window_start, n.event_ts) AND (e.event_at < n.window_end OR (n.window_end IS NULL AND e.event_at = n.event_ts))
    GROUP BY n.alert_id, e.stream, e._topic, e._partition
)
SELECT
    n.event_ts,
    n.alert_id,
    n.status,
    n.severity,
    n.rule_id,
    n.rule_version,
    n.standard,
    n.entity_id,
    n.window_start,
    n.window_end,
    n.explanation,
    n.source,
    p.stream,
    p.topic,
    p.kafka_partition,
    p.first_offset,
    p.last_offset,
    coalesce(p.events, 0) AS events,
    coalesce(p.late, 0) AS late,
    p.first_event_ts,
    p.last_event_ts
FROM newest n
LEFT JOIN places p ON p.alert_id = n.alert_id
ORDER BY n.event_ts DESC, n.alert_id, p.stream, p.topic, p.kafka_partition
