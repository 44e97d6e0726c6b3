/*---
id          = "rp_power_factor"
title       = "What do customers lose by a low power factor, and how many capacitors would they need?"
title_zh    = "用户功率因数、力调电费损失与无功补偿需求"
description = """
For account managers and their customers. One row per customer with a standard of the power factor (`pf_standard` of `pq_points`) and
month, the largest charge first. Power factor and `adjustment_pct` are those of pq_power_factor_month; below 0 the customer is rewarded.
`base_yuan` is demand times its price (`tariffs_two_part`) plus the energy charge, as the newest bill of the meter for the month says
them in its attributes `demand_kw` and `energy_amount`; `adjustment_yuan` is the percentage of it. NULL: no such bill.
`needed_kvar` is the capacitor that lifts the mean power of the month to the standard: the mean active power (register times the ratios of
`pq_points`) by the difference of the tangents; 0 where the standard is reached. Size it by the load curve: at night so much may be too much.
`coverage_pct` says how much of the month the registers cover; with `insufficient_data` nothing is computed. It cannot see which machine
draws the reactive energy.
"""
owner       = "billing"
duckdb      = true
---*/
WITH months AS (
    SELECT
        f.*,
        p.org_id,
        p.feeder,
        CAST(CAST(f.active_kwh AS DECIMAL(24, 6)) * coalesce(p.ct_ratio, 1) * coalesce(p.pt_ratio, 1) AS DOUBLE)
            / nullif((extract(epoch FROM f.window_end) - extract(epoch FROM f.window_start)) / 3600 * f.coverage_pct / 100, 0) AS mean_kw,
        CAST(f.reactive_kvarh AS DOUBLE) / nullif(CAST(f.active_kwh AS DOUBLE), 0) AS tangent,
        sqrt(1 / (CAST(f.pf_standard AS DOUBLE) * CAST(f.pf_standard AS DOUBLE)) - 1) AS standard_tangent
    FROM pq_power_factor_month f
    -- The version of the last moment of the month.
    JOIN pq_points p ON p.meter_id = f.meter_id
        AND (p.valid_from IS NULL OR p.valid_from < f.window_end) AND (p.valid_to IS NULL OR f.window_end <= p.valid_to)
    WHERE f.pf_standard IS NOT NULL
),
bills AS (
    SELECT
        meter_id,
        bill_period,
        bill_id,
        customer_id,
        TRY_CAST(attrs['demand_kw'] AS DECIMAL(14, 4)) AS demand_kw,
        TRY_CAST(attrs['energy_amount'] AS DECIMAL(16, 2)) AS energy_yuan,
        tariff_id,
        coalesce(period_end - INTERVAL '1 microsecond', event_ts) AS to_ts,
        row_number() OVER (PARTITION BY meter_id, bill_period ORDER BY event_ts DESC, bill_id) AS n
    FROM business_transactions
    WHERE process_type = 'billing' AND step = 'bill_issued' AND bill_id IS NOT NULL
),
bases AS (
    SELECT b.meter_id, b.bill_period, b.bill_id, b.customer_id, CAST(b.demand_kw * t.demand_price AS DECIMAL(18, 2)) + b.energy_yuan AS base_yuan
    FROM bills b
    JOIN tariffs_two_part t ON t.tariff_id = b.tariff_id
        AND (t.valid_from IS NULL OR t.valid_from <= b.to_ts) AND (t.valid_to IS NULL OR b.to_ts < t.valid_to)
    WHERE b.n = 1
)
SELECT
    m.local_month,
    m.meter_id,
    b.customer_id,
    m.org_id,
    m.feeder,
    m.verdict,
    m.power_factor,
    m.pf_standard,
    m.adjustment_pct,
    b.base_yuan,
    CAST(b.base_yuan * m.adjustment_pct / 100 AS DECIMAL(18, 2)) AS adjustment_yuan,
    b.bill_id,
    m.active_kwh,
    m.reactive_kvarh,
    CASE WHEN m.verdict <> 'insufficient_data' THEN CAST(m.mean_kw AS DECIMAL(15, 1)) END AS mean_kw,
    CASE
        WHEN m.verdict = 'insufficient_data' THEN NULL
        WHEN m.tangent > m.standard_tangent THEN CAST(m.mean_kw * (m.tangent - m.standard_tangent) AS DECIMAL(15, 1))
        ELSE 0
    END AS needed_kvar,
    CAST(m.coverage_pct AS DECIMAL(9, 2)) AS coverage_pct
FROM months m
LEFT JOIN bases b ON b.meter_id = m.meter_id AND b.bill_period = substr(CAST(m.local_month AS VARCHAR), 1, 7)
ORDER BY m.local_month DESC, adjustment_yuan DESC NULLS LAST, m.adjustment_pct DESC NULLS LAST, m.meter_id
