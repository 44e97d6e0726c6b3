/*---
id            = "pq_demand_over_contract"
kind          = "alert"
title         = "15-minute demand above the contract"
title_zh      = "最大需量超合同容量"
severity      = "warning"
entity        = "meter_id"
standard      = "internal"
category      = "load"
unit          = "kW"
owner         = "distribution"
resolve_after = 4
description   = """
Block demand of rd_demand_windows (complete windows only) against the demand agreed in the contract, `contract_kw` of `pq_points` at the
end of the window. Points without one are not judged. Demand is times the ratios of the instrument transformers in `pq_points`. Fires
above the contract, critical above `penal_pct` of it; a value equal to a limit is inside. One window is enough to raise the month's
bill, so it fires at once and resolves after four windows inside. It sees blocks of UTC quarters of an hour; a meter that bills by a
sliding demand may find a higher one in between. Windows with a reading missing give no demand and are not judged.
"""
params        = { penal_pct = 105.0 }
---*/
SELECT
    d.meter_id,
    d.window_start,
    d.window_end,
    d.demand_kw > d.contract_kw AS firing,
    CASE WHEN d.demand_kw > d.contract_kw * $penal_pct / 100 THEN 'critical' ELSE 'warning' END AS severity,
    d.demand_kw AS measured,
    d.contract_kw AS limit_high,
    'kW' AS unit,
    round(100 * CAST(d.demand_kw AS DOUBLE) / nullif(CAST(d.contract_kw AS DOUBLE), 0), 6) AS of_contract_pct
FROM (
    SELECT
        w.meter_id,
        w.window_start,
        w.window_end,
        TRY_CAST(w.demand_kw * CAST(coalesce(p.ct_ratio, 1) * coalesce(p.pt_ratio, 1) AS DECIMAL(12, 4)) AS DECIMAL(24, 6)) AS demand_kw,
        p.contract_kw
    FROM rd_demand_windows w
    JOIN pq_points p ON p.meter_id = w.meter_id
) d
WHERE d.contract_kw IS NOT NULL
