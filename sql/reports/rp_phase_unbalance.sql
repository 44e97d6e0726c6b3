/*---
id          = "rp_phase_unbalance"
title       = "Which transformers are loaded unevenly, and which customer should be moved from one phase to another?"
title_zh    = "配变三相不平衡排名与换相建议"
description = """
For those who run station areas. One row per transformer (points with a capacity in `pq_points`) and month, most uneven first, at most
200 a month. `mean_a_a` to `mean_c_a` are the means of the phase currents, of readings that have all three, times the ratio of the
current transformer; `unbalance_pct` is the largest less the smallest over the largest. `alert_h` are the hours of alerts of
pq_transformer_unbalance that opened in the month, from opening to end. Half of the difference (`move_a`) would have to go `from_phase`
`to_phase`; `candidate` is the single-phase customer on the loaded phase of that transformer whose mean current comes nearest to it without
exceeding it, else the smallest of those that exceed it: a proposal of one move, to be repeated next month. `from_customers` counts the
customers of that phase of which a current is known; 0 may mean that the register does not say their phase.
`coverage_pct` is the share of the readings that the meter should have given in the month (`interval_s` of `meter_installations`; NULL if unknown). Means
hide what a phase does in the evening, and the register of phases is often wrong: check on site before a wire is moved.
"""
owner       = "distribution"
duckdb      = true
---*/
WITH currents AS (
    SELECT
        r.meter_id,
        CAST(date_trunc('month', r.ts AT TIME ZONE 'Asia/Shanghai') AS DATE) AS local_month,
        count(*) AS readings,
        count(*) FILTER (WHERE r.i_a_a >= 0 AND r.i_b_a >= 0 AND r.i_c_a >= 0) AS with_currents,
        CAST(
            avg(TRY_CAST(r.i_a_a AS DECIMAL(12, 6)) * coalesce(p.ct_ratio, 1)) FILTER (WHERE r.i_a_a >= 0 AND r.i_b_a >= 0 AND r.i_c_a >= 0)
            AS DECIMAL(15, 3)
        ) AS mean_a_a,
        CAST(
            avg(TRY_CAST(r.i_b_a AS DECIMAL(12, 6)) * coalesce(p.ct_ratio, 1)) FILTER (WHERE r.i_a_a >= 0 AND r.i_b_a >= 0 AND r.i_c_a >= 0)
            AS DECIMAL(15, 3)
        ) AS mean_b_a,
        CAST(
            avg(TRY_CAST(r.i_c_a AS DECIMAL(12, 6)) * coalesce(p.ct_ratio, 1)) FILTER (WHERE r.i_a_a >= 0 AND r.i_b_a >= 0 AND r.i_c_a >= 0)
            AS DECIMAL(15, 3)
        ) AS mean_c_a,
        max(p.org_id) AS org_id,
        max(p.sn_kva) AS sn_kva,
        max(p.vector_group) AS vector_group
    FROM meter_readings r
    JOIN pq_points p ON p.meter_id = r.meter_id AND p.sn_kva > 0
        AND (p.valid_from IS NULL OR p.valid_from <= r.ts) AND (p.valid_to IS NULL OR r.ts < p.valid_to)
    GROUP BY r.meter_id, CAST(date_trunc('month', r.ts AT TIME ZONE 'Asia/Shanghai') AS DATE)
),
spans AS (
    SELECT
        *,
        greatest(mean_a_a, mean_b_a, mean_c_a) AS highest_a,
        least(mean_a_a, mean_b_a, mean_c_a) AS lowest_a,
        CASE WHEN mean_a_a >= mean_b_a AND mean_a_a >= mean_c_a THEN 'a' WHEN mean_b_a >= mean_c_a THEN 'b' ELSE 'c' END AS from_phase,
        CASE WHEN mean_c_a <= mean_a_a AND mean_c_a <= mean_b_a THEN 'c' WHEN mean_b_a <= mean_a_a THEN 'b' ELSE 'a' END AS to_phase
    FROM currents
    WHERE with_currents > 0
),
gates AS (
    SELECT
        s.*,
        m.transformer,
        m.feeder,
        i.interval_s,
        CAST((s.highest_a - s.lowest_a) / 2 AS DECIMAL(15, 3)) AS move_a,
        row_number() OVER (
            PARTITION BY s.local_month ORDER BY (s.highest_a - s.lowest_a) / nullif(s.highest_a, 0) DESC NULLS LAST, s.meter_id
        ) AS place
    FROM spans s
    LEFT JOIN meters m ON m.meter_id = s.meter_id
        AND (m.valid_from IS NULL OR CAST(m.valid_from AT TIME ZONE 'Asia/Shanghai' AS DATE) <= s.local_month)
        AND (m.valid_to IS NULL OR CAST(m.valid_to AT TIME ZONE 'Asia/Shanghai' AS DATE) > s.local_month)
    LEFT JOIN meter_installations i ON i.meter_id = s.meter_id
        AND (i.valid_from IS NULL OR CAST(i.valid_from AT TIME ZONE 'Asia/Shanghai' AS DATE) <= s.local_month)
        AND (i.valid_to IS NULL OR CAST(i.valid_to AT TIME ZONE 'Asia/Shanghai' AS DATE) > s.local_month)
),
customers AS (
    SELECT
        m.transformer,
        m.phases,
        m.meter_id,
        CAST(date_trunc('month', r.ts AT TIME ZONE 'Asia/Shanghai') AS DATE) AS local_month,
        CAST(
            avg(TRY_CAST(CASE m.phases WHEN 'a' THEN r.i_a_a WHEN 'b' THEN r.i_b_a ELSE r.i_c_a END AS DECIMAL(12, 6))) AS DECIMAL(15, 3)
        ) AS mean_a
    FROM meter_readings r
    JOIN meters m ON m.meter_id = r.meter_id AND m.kind = 'customer' AND m.phases IN ('a', 'b', 'c')
        AND (m.valid_from IS NULL OR m.valid_from <= r.ts) AND (m.valid_to IS NULL OR r.ts < m.valid_to)
    GROUP BY m.transformer, m.phases, m.meter_id, CAST(date_trunc('month', r.ts AT TIME ZONE 'Asia/Shanghai') AS DATE)
),
candidates AS (
    SELECT
        g.meter_id,
        g.local_month,
        c.meter_id AS candidate,
        c.mean_a AS candidate_a,
        count(*) OVER (PARTITION BY g.meter_id, g.local_month) AS from_customers,
        row_number() OVER (
            PARTITION BY g.meter_id, g.local_month
            ORDER BY CASE WHEN c.mean_a <= g.move_a THEN 0 ELSE 1 END, abs(g.move_a - c.mean_a), c.meter_id
        ) AS n
    FROM gates g
    JOIN customers c ON c.transformer = g.transformer AND c.local_month = g.local_month AND c.phases = g.from_phase AND c.mean_a > 0
    WHERE g.move_a > 0
),
episodes AS (
    SELECT
        entity_id AS meter_id,
        CAST(date_trunc('month', first_seen_ts AT TIME ZONE 'Asia/Shanghai') AS DATE) AS local_month,
        CAST(sum(extract(epoch FROM coalesce(resolved_ts, last_seen_ts)) - extract(epoch FROM first_seen_ts)) / 3600 AS DECIMAL(9, 2)) AS alert_h
    FROM (
        -- The last record of each opening says how it ended.
        SELECT *, row_number() OVER (PARTITION BY fingerprint, opening ORDER BY revision DESC) AS n
        FROM (
            SELECT *, sum(CASE status WHEN 'open' THEN 1 ELSE 0 END) OVER (PARTITION BY fingerprint ORDER BY revision) AS opening
            FROM alerts
            WHERE rule_id = 'pq_transformer_unbalance'
        ) o
    ) a
    WHERE n = 1
    GROUP BY entity_id, CAST(date_trunc('month', first_seen_ts AT TIME ZONE 'Asia/Shanghai') AS DATE)
)
SELECT
    g.local_month,
    g.place,
    g.meter_id,
    g.transformer,
    g.feeder,
    g.org_id,
    g.sn_kva,
    g.vector_group,
    CAST(CAST(g.highest_a - g.lowest_a AS DECIMAL(18, 6)) * 100 / nullif(g.highest_a, 0) AS DECIMAL(9, 2)) AS unbalance_pct,
    g.mean_a_a,
    g.mean_b_a,
    g.mean_c_a,
    coalesce(e.alert_h, 0) AS alert_h,
    CASE WHEN g.move_a > 0 THEN g.from_phase END AS from_phase,
    CASE WHEN g.move_a > 0 THEN g.to_phase END AS to_phase,
    g.move_a,
    coalesce(c.from_customers, 0) AS from_customers,
    c.candidate,
    c.candidate_a,
    CAST(
        CAST(g.with_currents AS DECIMAL(18, 6)) * 100 * g.interval_s
            / (
                extract(epoch FROM CAST(g.local_month + INTERVAL '1 month' AS TIMESTAMP)) - extract(epoch FROM CAST(g.local_month AS TIMESTAMP))
            ) AS DECIMAL(9, 2)
    ) AS coverage_pct
FROM gates g
LEFT JOIN candidates c ON c.meter_id = g.meter_id AND c.local_month = g.local_month AND c.n = 1
LEFT JOIN episodes e ON e.meter_id = g.meter_id AND e.local_month = g.local_month
WHERE g.place <= 200
ORDER BY g.local_month DESC, g.place
