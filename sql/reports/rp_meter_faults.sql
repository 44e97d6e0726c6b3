/*---
id          = "rp_meter_faults"
title       = "Which meters fail, by vendor, type and year of installation, and should a batch be recalled?"
title_zh    = "电能表故障率(按厂家、规格、安装年份)"
description = """
For the meter workshop and purchasing. One row per vendor, phases, current rating and year of installation, the highest `faulty_pct` first: the
share of the meters of which a rule told of a fault since the archive began,
of those in `meters` today that were heard (NULL if none was). Faults are what lies in the meter: its clock,
battery and status word, registers that stand still, run away or go back, values that cannot be, stand still or jump in scale, phases that are missing.
`faults` counts each meter and rule once, `episodes` each time it came, `open_faults` those that hold now; `top_fault` is the commonest.
`faults_per_100_meter_years` relates them to the time in the archive (`observed_years`, from the first to the newest reading), so that groups watched
for different times compare. Groups of fewer than 20 meters are marked `few`: a share of them proves nothing.
The registers of meters name no batch and no model: vendor is that of a row of `devices` with the meter's name, if there is one (else
`unknown`), the type is `rated_a`(`max_a`) of `meter_installations`, and its first row gives the year, which is when it was installed, not made.
Only rules that the job runs can tell; a fault of the collection may look like one of the meter.
"""
owner       = "metering"
duckdb      = true
---*/
WITH installed AS (
    SELECT
        m.meter_id,
        coalesce(d.vendor, 'unknown') AS vendor,
        coalesce(m.phases, 'unknown') AS phases,
        CASE
            WHEN i.rated_a IS NULL OR i.max_a IS NULL THEN 'unknown'
            ELSE concat(CAST(CAST(i.rated_a AS DECIMAL(9, 1)) AS VARCHAR), '(', CAST(CAST(i.max_a AS DECIMAL(9, 1)) AS VARCHAR), ') A')
        END AS rating,
        f.installed_year
    FROM meters m
    LEFT JOIN (SELECT device_id, max(vendor) AS vendor FROM devices GROUP BY device_id) d ON d.device_id = m.meter_id
    LEFT JOIN (
        SELECT meter_id, rated_a, max_a, row_number() OVER (PARTITION BY meter_id ORDER BY valid_from DESC NULLS LAST) AS n
        FROM meter_installations
    ) i ON i.meter_id = m.meter_id AND i.n = 1
    LEFT JOIN (
        SELECT meter_id, CAST(extract(year FROM min(valid_from) AT TIME ZONE 'Asia/Shanghai') AS BIGINT) AS installed_year
        FROM meter_installations
        GROUP BY meter_id
    ) f ON f.meter_id = m.meter_id
    WHERE m.valid_to IS NULL
),
heard AS (
    SELECT meter_id, (extract(epoch FROM max(ts)) - extract(epoch FROM min(ts))) / 31557600 AS years
    FROM meter_readings
    GROUP BY meter_id
),
told AS (
    SELECT
        split_part(entity_id, '|', 1) AS meter_id,
        rule_id,
        count(*) FILTER (WHERE status = 'open') AS episodes,
        count(*) FILTER (WHERE n = 1 AND status <> 'resolved') AS open_faults
    FROM (
        SELECT *, row_number() OVER (PARTITION BY fingerprint ORDER BY revision DESC) AS n
        FROM alerts
        WHERE rule_id IN (
            'rd_channels_missing', 'rd_clock_drift', 'rd_clock_rate', 'rd_clock_reset', 'rd_current_range', 'rd_out_of_range', 'rd_phase_missing',
            'rd_register_mismatch', 'rd_register_rollback', 'rd_register_runaway', 'rd_register_stuck', 'rd_scale_jump', 'rd_status_word',
            'rd_tariff_registers', 'rd_values_frozen', 'rd_voltage_missing'
        )
    ) a
    GROUP BY split_part(entity_id, '|', 1), rule_id
),
by_meter AS (
    SELECT
        i.*,
        h.years,
        t.rule_id,
        t.episodes,
        t.open_faults,
        row_number() OVER (PARTITION BY i.meter_id ORDER BY t.rule_id) AS n
    FROM installed i
    LEFT JOIN heard h ON h.meter_id = i.meter_id
    LEFT JOIN told t ON t.meter_id = i.meter_id
),
top_faults AS (
    SELECT
        vendor,
        phases,
        rating,
        installed_year,
        rule_id,
        row_number() OVER (PARTITION BY vendor, phases, rating, installed_year ORDER BY count(*) DESC, rule_id) AS n
    FROM by_meter
    WHERE rule_id IS NOT NULL
    GROUP BY vendor, phases, rating, installed_year, rule_id
),
counts AS (
    SELECT
        vendor,
        phases,
        rating,
        installed_year,
        count(DISTINCT meter_id) AS meters,
        count(DISTINCT CASE WHEN years IS NOT NULL THEN meter_id END) AS meters_heard,
        count(DISTINCT CASE WHEN rule_id IS NOT NULL THEN meter_id END) AS meters_faulty,
        count(rule_id) AS faults,
        coalesce(sum(episodes), 0) AS episodes,
        coalesce(sum(open_faults), 0) AS open_faults,
        sum(CASE WHEN n = 1 THEN years END) AS observed_years
    FROM by_meter
    GROUP BY vendor, phases, rating, installed_year
)
SELECT
    c.vendor,
    c.phases,
    c.rating,
    c.installed_year,
    c.meters,
    c.meters_heard,
    c.meters_faulty,
    CAST(CAST(c.meters_faulty AS DECIMAL(18, 6)) * 100 / nullif(c.meters_heard, 0) AS DECIMAL(9, 2)) AS faulty_pct,
    c.faults,
    c.episodes,
    c.open_faults,
    t.rule_id AS top_fault,
    CAST(c.observed_years AS DECIMAL(12, 2)) AS observed_years,
    CAST(c.faults * 100 / nullif(c.observed_years, 0) AS DECIMAL(12, 1)) AS faults_per_100_meter_years,
    c.meters < 20 AS few
FROM counts c
LEFT JOIN top_faults t ON t.n = 1 AND t.vendor = c.vendor AND t.phases = c.phases AND t.rating = c.rating
    AND coalesce(t.installed_year, 0) = coalesce(c.installed_year, 0)
ORDER BY faulty_pct DESC NULLS LAST, c.meters DESC, c.vendor, c.phases, c.rating, c.installed_year NULLS LAST
