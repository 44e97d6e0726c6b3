/*---
id          = "rd_unknown_meter"
kind        = "alert"
title       = "Reading of a meter that is not in the registry at that time"
severity    = "warning"
entity      = "meter_id"
category    = "integrity"
standard    = "internal"
owner       = "metering"
description = """
Each such reading is one occurrence. A meter counts as known from `valid_from` up to, but not including, `valid_to` of its row in the
reference table `meters`: readings before installation or after removal are reported too.
"""
---*/
SELECT r.meter_id, r.ts, r.energy_imp_kwh, r.p_kw
FROM meter_readings r
LEFT JOIN meters m ON m.meter_id = r.meter_id
WHERE m.meter_id IS NULL
