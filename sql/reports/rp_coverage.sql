/*---
id          = "rp_coverage"
title       = "What was expected, received, late and refused, by stream, organisation and day, and up to when is it complete?"
title_zh    = "数据覆盖:应收、实收、迟到、拒收、时延与完整截止时间"
description = """
Read it before any other report: it says which days can be trusted. One row per local day (UTC+8), stream and organisation, and one of
`all` of the stream first, newest day first. `members` are the meters or devices of the register on that day, `heard` those of which anything came,
`expected` the instants that their periods promise (`interval_s` of `meter_installations`, `step_s` of `devices`), `received` the events, and
`complete_pct` the different instants of registered members over the expected ones. NULL: nobody promises events and transactions, and of a
meter without `interval_s` nothing is expected. `unregistered` events come from nobody in the register.
`late` events came more than two minutes behind the newest of their lane: rules with the default delay did not see them, their raw
table did. `lag_p95_min` is the delay from the time of a reading to its publication (`ingest_ts`), that 95 % of them keep. `refused` records are in
`dead_letters` and are counted by the day on which they were refused, in the row `all` only: nobody knows whose they were.
`complete_to` is the earliest of the newest events of the members of the organisation that were ever heard: up to then all of them have
spoken (for events and transactions the newest of all). `silent_members` are those registered that were never heard at all.
The organisation is that of `pq_points`, for devices `area`; `unknown` without one. Days on which no stream of the job had any event have no row but that of
refusals; of the newest day more is still to come. Fields that are missing within a reading do not show here.
"""
owner       = "operations"
duckdb      = true
---*/
WITH registered AS (
    SELECT
        'meter_readings' AS stream,
        m.meter_id AS id,
        coalesce(p.org_id, 'unknown') AS org_id,
        CASE WHEN i.interval_s BETWEEN 1 AND 86400 THEN CAST(86400 / i.interval_s AS BIGINT) END AS per_day,
        CAST(m.valid_from AT TIME ZONE 'Asia/Shanghai' AS DATE) AS from_date,
        CAST(m.valid_to AT TIME ZONE 'Asia/Shanghai' AS DATE) AS to_date
    FROM meters m
    -- The newest version of each.
    LEFT JOIN (
        SELECT meter_id, org_id, row_number() OVER (PARTITION BY meter_id ORDER BY valid_from DESC NULLS LAST) AS n FROM pq_points
    ) p ON p.meter_id = m.meter_id AND p.n = 1
    LEFT JOIN (
        SELECT meter_id, interval_s, row_number() OVER (PARTITION BY meter_id ORDER BY valid_from DESC NULLS LAST) AS n FROM meter_installations
    ) i ON i.meter_id = m.meter_id AND i.n = 1
    UNION ALL
    SELECT
        'device_metrics',
        device_id,
        coalesce(nullif(area, ''), 'unknown'),
        CASE WHEN step_s BETWEEN 1 AND 86400 THEN CAST(86400 / step_s AS BIGINT) END,
        CAST(valid_from AT TIME ZONE 'Asia/Shanghai' AS DATE),
        CAST(valid_to AT TIME ZONE 'Asia/Shanghai' AS DATE)
    FROM devices
),
homes AS (
    SELECT stream, id, max(org_id) AS org_id FROM registered GROUP BY stream, id
),
events AS (
    SELECT 'meter_readings' AS stream, meter_id AS id, CAST(NULL AS VARCHAR) AS own_org, ts AS event_at, ingest_ts AS published_ts, _lateness_ms FROM meter_readings
    UNION ALL
    SELECT 'device_metrics', device_id, NULL, ts, NULL, _lateness_ms FROM device_metrics
    UNION ALL
    SELECT 'meter_events', meter_id, NULL, start_ts, NULL, _lateness_ms FROM meter_events
    UNION ALL
    SELECT 'business_transactions', case_id, org_id, event_ts, NULL, _lateness_ms FROM business_transactions
),
placed AS (
    SELECT
        e.stream,
        e.id,
        coalesce(e.own_org, h.org_id, p.org_id, 'unknown') AS org_id,
        h.id IS NOT NULL AS is_registered,
        CAST(date_trunc('day', e.event_at AT TIME ZONE 'Asia/Shanghai') AS DATE) AS local_date,
        e.event_at,
        (extract(epoch FROM e.published_ts) - extract(epoch FROM e.event_at)) / 60 AS lag_min,
        e._lateness_ms
    FROM events e
    LEFT JOIN homes h ON h.stream = e.stream AND h.id = e.id
    LEFT JOIN homes p ON e.stream = 'meter_events' AND p.stream = 'meter_readings' AND p.id = e.id
),
refused AS (
    SELECT stream, CAST(refused_at AT TIME ZONE 'Asia/Shanghai' AS DATE) AS local_date, count(*) AS refused
    FROM dead_letters
    GROUP BY stream, CAST(refused_at AT TIME ZONE 'Asia/Shanghai' AS DATE)
),
levels AS (
    SELECT level FROM (VALUES ('all'), ('organisation')) AS l (level)
),
received AS (
    SELECT
        p.stream,
        CASE l.level WHEN 'all' THEN 'all' ELSE p.org_id END AS org_id,
        p.local_date,
        count(DISTINCT CASE WHEN p.is_registered THEN p.id END) AS heard,
        count(*) AS received,
        count(DISTINCT CASE WHEN p.is_registered THEN concat(p.id, '|', CAST(p.event_at AS VARCHAR)) END) AS instants,
        count(*) FILTER (WHERE NOT p.is_registered AND p.stream IN ('meter_readings', 'device_metrics')) AS unregistered,
        count(*) FILTER (WHERE p._lateness_ms > 120000) AS late,
        CAST(percentile_cont(0.95) WITHIN GROUP (ORDER BY p.lag_min) AS DECIMAL(12, 1)) AS lag_p95_min,
        max(p.event_at) AS last_at
    FROM placed p
    CROSS JOIN levels l
    GROUP BY 1, 2, 3
),
days AS (
    SELECT DISTINCT local_date FROM received
),
promised AS (
    SELECT
        r.stream,
        CASE l.level WHEN 'all' THEN 'all' ELSE r.org_id END AS org_id,
        d.local_date,
        count(DISTINCT r.id) AS members,
        sum(r.per_day) AS expected
    FROM days d
    JOIN registered r ON (r.from_date IS NULL OR r.from_date <= d.local_date) AND (r.to_date IS NULL OR d.local_date < r.to_date)
    CROSS JOIN levels l
    GROUP BY 1, 2, 3
),
last_heard AS (
    SELECT stream, id, org_id, is_registered, max(event_at) AS last_at FROM placed GROUP BY stream, id, org_id, is_registered
),
complete AS (
    SELECT
        h.stream,
        CASE l.level WHEN 'all' THEN 'all' ELSE h.org_id END AS org_id,
        CASE
            WHEN h.stream IN ('meter_readings', 'device_metrics') THEN min(CASE WHEN h.is_registered THEN h.last_at END) ELSE max(h.last_at)
        END AS complete_to
    FROM last_heard h
    CROSS JOIN levels l
    GROUP BY 1, 2
),
silent AS (
    SELECT g.stream, CASE l.level WHEN 'all' THEN 'all' ELSE g.org_id END AS org_id, count(*) FILTER (WHERE h.id IS NULL) AS silent_members
    FROM homes g
    LEFT JOIN (SELECT DISTINCT stream, id FROM last_heard) h ON h.stream = g.stream AND h.id = g.id
    CROSS JOIN levels l
    GROUP BY 1, 2
),
keys AS (
    SELECT stream, org_id, local_date FROM promised
    UNION
    SELECT stream, org_id, local_date FROM received
    UNION
    SELECT stream, 'all', local_date FROM refused
)
SELECT
    k.local_date,
    k.stream,
    k.org_id,
    p.members,
    CASE WHEN p.members IS NOT NULL THEN coalesce(r.heard, 0) END AS heard,
    p.expected,
    coalesce(r.received, 0) AS received,
    CAST(CAST(coalesce(r.instants, 0) AS DECIMAL(18, 6)) * 100 / nullif(p.expected, 0) AS DECIMAL(9, 2)) AS complete_pct,
    coalesce(r.unregistered, 0) AS unregistered,
    coalesce(r.late, 0) AS late,
    CASE WHEN k.org_id = 'all' THEN coalesce(x.refused, 0) END AS refused,
    r.lag_p95_min,
    r.last_at,
    c.complete_to,
    s.silent_members
FROM keys k
LEFT JOIN promised p ON p.stream = k.stream AND p.org_id = k.org_id AND p.local_date = k.local_date
LEFT JOIN received r ON r.stream = k.stream AND r.org_id = k.org_id AND r.local_date = k.local_date
LEFT JOIN refused x ON x.stream = k.stream AND x.local_date = k.local_date
LEFT JOIN complete c ON c.stream = k.stream AND c.org_id = k.org_id
LEFT JOIN silent s ON s.stream = k.stream AND s.org_id = k.org_id
ORDER BY k.local_date DESC, k.stream, CASE k.org_id WHEN 'all' THEN 0 ELSE 1 END, k.org_id
