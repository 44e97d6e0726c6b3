/*---
id            = "pq_demand_over_contract"
kind          = "alert"
title         = "15-minute demand above the contract"
severity      = "warning"
entity        = "meter_id"
standard      = "internal"
category      = "load"
unit          = "kW"
owner         = "distribution"
resolve_after = 4
description   = """
Block demand of rd_demand_windows (complete windows only) against the demand agreed in the contract, which is `limit_high`
of the row of `device_limits` with the meter's id and metric `demand_kw` that is valid at the end of the window. Meters
without such a row are not judged. Fires above the contract, critical above `penal_pct` of it; a value equal to a limit is
inside. One window is enough to raise the month's bill, so it fires at once and resolves after four windows inside. It
sees blocks of UTC quarters of an hour; a meter that bills by a sliding demand may find a higher one in between. Windows
with a reading missing give no demand and are not judged.
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
    SELECT w.meter_id, w.window_start, w.window_end, w.demand_kw, TRY_CAST(l.limit_high AS DECIMAL(15, 6)) AS contract_kw
    FROM rd_demand_windows w
    JOIN device_limits l ON l.device_id = w.meter_id AND l.metric_name = 'demand_kw'
) d
WHERE d.contract_kw IS NOT NULL
