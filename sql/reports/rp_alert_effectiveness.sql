/*---
id          = "rp_alert_effectiveness"
title       = "Which rules tell too much, how long do their alerts last, and is anything done about them?"
title_zh    = "告警有效性:噪声规则、持续时间与处置情况"
description = """
For those who own the rules. One row per month and rule, the noisiest first. An alert is one opening; `alerts` counts them, `share_pct` is what
the rule is of all alerts of the month, `per_entity` how often it opened for one entity, and `reopened_1d` how many opened within a day after
the last one of the same entity ended: flapping, for a longer `resolve_after` or a second limit. `resolved`, `median_h` and `longest_h` are from the
first firing row to the good one, by the time of the events; `still_open` holds alerts that last, and all single occurrences, which are
never resolved (`resolved` is 0 for a rule of them). `about_meters` are alerts whose entity is a meter of `meters`; `followed` are those of
them for which somebody reported a work order for the meter within 7 days after it opened, `median_to_order_h` how long that took: the
nearest that the archive comes to an answer of a person, and an order may have come for another reason.
It cannot say who acknowledged an alert and when, nor whether it was true: that stands in the system which handles them. A month that still
runs holds alerts that have no end yet, and orders still to come.
"""
owner       = "operations"
duckdb      = true
---*/
WITH openings AS (
    SELECT
        fingerprint,
        rule_id,
        severity,
        entity_id,
        split_part(entity_id, '|', 1) AS first_id,
        status,
        occurrences,
        first_seen_ts,
        CAST(date_trunc('month', first_seen_ts AT TIME ZONE 'Asia/Shanghai') AS DATE) AS local_month,
        CASE WHEN status = 'resolved' THEN (extract(epoch FROM resolved_ts) - extract(epoch FROM first_seen_ts)) / 3600 END AS lasted_h,
        lag(resolved_ts) OVER (PARTITION BY fingerprint ORDER BY first_seen_ts) AS before_ts
    FROM (
        -- The last record of each opening says how it ended.
        SELECT *, row_number() OVER (PARTITION BY fingerprint, opening ORDER BY revision DESC) AS n
        FROM (
            SELECT *, sum(CASE status WHEN 'open' THEN 1 ELSE 0 END) OVER (PARTITION BY fingerprint ORDER BY revision) AS opening
            FROM alerts
        ) o
    ) a
    WHERE n = 1
),
orders AS (
    SELECT o.fingerprint, o.first_seen_ts, min(b.event_ts) AS order_ts
    FROM openings o
    JOIN business_transactions b ON b.meter_id = o.first_id AND b.process_type = 'work_order' AND b.step = 'report'
        AND b.event_ts >= o.first_seen_ts AND b.event_ts <= o.first_seen_ts + INTERVAL '7 days'
    GROUP BY o.fingerprint, o.first_seen_ts
),
known_meters AS (
    SELECT DISTINCT meter_id FROM meters
),
rules AS (
    SELECT
        o.local_month,
        o.rule_id,
        count(*) FILTER (WHERE o.severity = 'critical') AS critical,
        count(*) AS alerts,
        count(DISTINCT o.entity_id) AS entities,
        count(*) FILTER (WHERE o.before_ts IS NOT NULL AND o.first_seen_ts <= o.before_ts + INTERVAL '1 day') AS reopened_1d,
        sum(o.occurrences) AS occurrences,
        count(*) FILTER (WHERE o.status = 'resolved') AS resolved,
        count(*) FILTER (WHERE o.status <> 'resolved') AS still_open,
        CAST(median(o.lasted_h) AS DECIMAL(12, 2)) AS median_h,
        CAST(max(o.lasted_h) AS DECIMAL(12, 2)) AS longest_h,
        count(m.meter_id) AS about_meters,
        count(*) FILTER (WHERE m.meter_id IS NOT NULL AND w.order_ts IS NOT NULL) AS followed,
        CAST(
            median(CASE WHEN m.meter_id IS NOT NULL THEN (extract(epoch FROM w.order_ts) - extract(epoch FROM o.first_seen_ts)) / 3600 END)
            AS DECIMAL(12, 2)
        ) AS median_to_order_h
    FROM openings o
    LEFT JOIN known_meters m ON m.meter_id = o.first_id
    LEFT JOIN orders w ON w.fingerprint = o.fingerprint AND w.first_seen_ts = o.first_seen_ts
    GROUP BY o.local_month, o.rule_id
)
SELECT
    local_month,
    rule_id,
    alerts,
    CAST(CAST(alerts AS DECIMAL(18, 6)) * 100 / sum(alerts) OVER (PARTITION BY local_month) AS DECIMAL(9, 2)) AS share_pct,
    critical,
    entities,
    CAST(CAST(alerts AS DECIMAL(18, 6)) / entities AS DECIMAL(9, 2)) AS per_entity,
    reopened_1d,
    occurrences,
    resolved,
    still_open,
    median_h,
    longest_h,
    about_meters,
    followed,
    median_to_order_h
FROM rules
ORDER BY local_month DESC, alerts DESC, rule_id
