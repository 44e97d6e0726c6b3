/*---
id          = "tx_frozen_registers"
kind        = "view"
title       = "Frozen registers of meters, and whether they were estimated"
title_zh    = "冻结示数"
category    = "business"
standard    = "internal"
owner       = "metering"
description = """
Readings whose kind matches `reading_kinds`, with a register: the freezes at midnight of a day or month, which close the
day before. A reading is an estimate if one of its quality codes fits `estimated`; in codes of IEC 61968-9 the second
part is 8 then. Rules that join these readings to bills keep them for weeks, so let it be kinds that come rarely.
"""
params      = { reading_kinds = "^freeze_(day|month)$", estimated = "^[0-9]+[.]8[.]" }
---*/
SELECT
    meter_id,
    ts,
    energy_imp_kwh,
    coalesce(regexp_like(array_to_string(quality_codes, chr(10)), $estimated, 'm'), FALSE) AS is_estimate
FROM meter_readings
WHERE regexp_like(reading_kind, $reading_kinds) AND energy_imp_kwh IS NOT NULL
