/*---
id          = "rp_collection"
title       = "How well is data collected, by area, vendor, firmware and mode of communication?"
title_zh    = "按区域、厂家、固件、通信方式的采集成功率与完整率"
description = """
For those who run the collection and buy its devices. One row per month and area, vendor, type, firmware and mode of communication, lowest
`success_pct` first: what the devices collected in time of what they should have (`collect_ok` over `collect_expected`), of the samples
that came. `complete_pct` is how many samples came of those that `step_s` of `devices` promises on the days on which any device was
heard: a device that is silent collects nothing and lowers this one, not the other; read both. `devices_heard` of `devices`.
Area, vendor and type are those of the register, firmware what the device says, else the register; the mode is the tag `comm_mode` of
the samples (`unknown` where devices do not send it). A firmware or mode that changed within the month is in two rows, and
`complete_pct` of these two groupings is NULL, as nobody says what was to be expected. Devices that are not in the register are left out.
How complete the readings themselves are: op_collection_days and rp_coverage.
"""
owner       = "operations"
duckdb      = true
---*/
WITH samples AS (
    SELECT
        CAST(r.ts AT TIME ZONE 'Asia/Shanghai' AS DATE) AS local_date,
        CAST(date_trunc('month', r.ts AT TIME ZONE 'Asia/Shanghai') AS DATE) AS local_month,
        r.device_id,
        d.area,
        d.vendor,
        d.device_type,
        coalesce(nullif(trim(r.firmware), ''), d.firmware) AS firmware,
        coalesce(r.tags['comm_mode'], 'unknown') AS comm_mode,
        r.ts,
        r.collect_ok,
        r.collect_expected
    FROM device_metrics r
    JOIN devices d ON d.device_id = r.device_id
        AND (d.valid_from IS NULL OR d.valid_from <= r.ts) AND (d.valid_to IS NULL OR r.ts < d.valid_to)
),
days AS (
    SELECT DISTINCT local_date, local_month FROM samples
),
promised AS (
    SELECT t.local_month, d.device_id, d.area, d.vendor, d.device_type, CAST(86400 / d.step_s AS BIGINT) AS expected
    FROM days t
    JOIN devices d ON d.step_s BETWEEN 1 AND 86400
        AND (d.valid_from IS NULL OR CAST(d.valid_from AT TIME ZONE 'Asia/Shanghai' AS DATE) <= t.local_date)
        AND (d.valid_to IS NULL OR CAST(d.valid_to AT TIME ZONE 'Asia/Shanghai' AS DATE) > t.local_date)
),
groupings AS (
    SELECT * FROM (VALUES ('area'), ('vendor'), ('device_type'), ('firmware'), ('comm_mode')) AS g (grouping)
),
collected AS (
    SELECT
        s.local_month,
        g.grouping,
        CASE g.grouping
            WHEN 'area' THEN s.area WHEN 'vendor' THEN s.vendor WHEN 'device_type' THEN s.device_type WHEN 'firmware' THEN s.firmware ELSE s.comm_mode
        END AS member,
        count(DISTINCT s.device_id) AS devices_heard,
        count(DISTINCT s.local_date) AS days,
        count(DISTINCT concat(s.device_id, '|', CAST(s.ts AS VARCHAR))) AS samples,
        sum(s.collect_expected) FILTER (WHERE s.collect_ok >= 0 AND s.collect_expected >= 0) AS readings_expected,
        sum(s.collect_ok) FILTER (WHERE s.collect_ok >= 0 AND s.collect_expected >= 0) AS readings_in_time
    FROM samples s
    CROSS JOIN groupings g
    GROUP BY 1, 2, 3
),
expected AS (
    SELECT
        p.local_month,
        g.grouping,
        CASE g.grouping WHEN 'area' THEN p.area WHEN 'vendor' THEN p.vendor ELSE p.device_type END AS member,
        count(DISTINCT p.device_id) AS devices,
        sum(p.expected) AS samples_expected
    FROM promised p
    CROSS JOIN groupings g
    WHERE g.grouping IN ('area', 'vendor', 'device_type')
    GROUP BY 1, 2, 3
)
SELECT
    coalesce(c.local_month, e.local_month) AS local_month,
    coalesce(c.grouping, e.grouping) AS grouping,
    coalesce(c.member, e.member) AS member,
    CAST(CAST(c.readings_in_time AS DECIMAL(18, 6)) * 100 / nullif(c.readings_expected, 0) AS DECIMAL(9, 4)) AS success_pct,
    c.readings_expected,
    c.readings_in_time,
    CAST(CAST(coalesce(c.samples, 0) AS DECIMAL(18, 6)) * 100 / nullif(e.samples_expected, 0) AS DECIMAL(9, 4)) AS complete_pct,
    coalesce(c.samples, 0) AS samples,
    e.samples_expected,
    e.devices,
    coalesce(c.devices_heard, 0) AS devices_heard,
    coalesce(c.days, 0) AS days_heard
FROM collected c
FULL JOIN expected e ON e.local_month = c.local_month AND e.grouping = c.grouping AND e.member = c.member
WHERE coalesce(c.member, e.member) <> ''
ORDER BY local_month DESC, grouping, success_pct NULLS FIRST, member
