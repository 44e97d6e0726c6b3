/*---
id          = "pq_demand_month"
kind        = "table"
title       = "Highest demand of each point and month against the contract"
title_zh    = "月最大需量与合同容量"
standard    = "internal"
category    = "load"
entity      = "meter_id"
unit        = "kW"
owner       = "distribution"
description = """
Highest block demand of a calendar month (Asia/Shanghai) from the complete windows of rd_demand_windows, when it was, and what it is of
`contract_kw` in `pq_points`. `verdict` is `within`, `over` or, above `penal_pct`, `penal`; a value equal to a limit is inside;
`no_contract` where there is none. Below `min_coverage_pct` of the month's windows it is `insufficient_data`, unless the contract is
exceeded already. A meter that bills by a sliding demand may find a higher one.
"""
params      = { penal_pct = 105.0, min_coverage_pct = 90.0 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_month,
    highest_kw,
    highest_at,
    contract_kw,
    CAST(100 * highest_kw / nullif(contract_kw, 0) AS DECIMAL(18, 6)) AS of_contract_pct,
    windows,
    round(100 * CAST(windows AS DOUBLE) / quarters, 6) AS coverage_pct,
    CASE
        WHEN contract_kw IS NULL THEN 'no_contract'
        WHEN 100 * highest_kw > contract_kw * $penal_pct THEN 'penal'
        WHEN highest_kw > contract_kw THEN 'over'
        WHEN windows * 100 < $min_coverage_pct * quarters THEN 'insufficient_data'
        ELSE 'within'
    END AS verdict
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        max(demand_kw) AS highest_kw,
        first_value(demand_at ORDER BY demand_kw DESC, demand_at) AS highest_at,
        last_value(contract_kw ORDER BY demand_at) AS contract_kw,
        count(*) AS windows,
        CAST((extract(epoch FROM window_end) - extract(epoch FROM window_start)) / 900 AS BIGINT) AS quarters
    FROM TUMBLE(
        (
            SELECT
                w.meter_id,
                w.window_start AS at,
                w.window_start AS demand_at,
                TRY_CAST(w.demand_kw * CAST(coalesce(p.ct_ratio, 1) * coalesce(p.pt_ratio, 1) AS DECIMAL(12, 4)) AS DECIMAL(24, 6)) AS demand_kw,
                p.contract_kw
            FROM (SELECT meter_id, window_start, window_end, demand_kw FROM rd_demand_windows) w
            JOIN pq_points p ON p.meter_id = w.meter_id
        ),
        at,
        INTERVAL '1 month',
        'Asia/Shanghai'
    )
    GROUP BY meter_id, window_start, window_end
) m
