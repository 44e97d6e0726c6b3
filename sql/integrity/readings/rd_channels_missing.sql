/*---
id          = "rd_channels_missing"
kind        = "alert"
title       = "Reading lacks a channel that the meter delivered within the last day"
title_zh    = "读数缺少曾上送的数据项"
severity    = "info"
entity      = ["meter_id", "reading_kind"]
category    = "integrity"
standard    = "internal"
owner       = "metering"
description = """
Fires when a reading with the register of imported energy lacks a value which another reading of the same meter and kind
had within the 24 hours before: exported energy, reactive energy of either direction, total power, or the current of
phase A. The read job was cut short or its list of channels was changed. `missing` names them, `measured` is their
number. Resolves with a reading that has all of them.
What a meter delivers is learnt from the last 24 hours, so no registry is needed; hence a channel that stays away for
longer counts as not there any more, and the alert resolves. Voltages are left to rd_voltage_missing.
Not seen: a channel that was never delivered, and readings without imported energy.
"""
---*/
SELECT
    meter_id,
    ts,
    reading_kind,
    no_export OR no_reactive_imp OR no_reactive_exp OR no_power OR no_current AS firing,
    CAST(no_export AS INT) + CAST(no_reactive_imp AS INT) + CAST(no_reactive_exp AS INT) + CAST(no_power AS INT)
        + CAST(no_current AS INT) AS measured,
    0 AS limit_high,
    concat_ws(
        ' ',
        CASE WHEN no_export THEN 'energy_exp_kwh' END,
        CASE WHEN no_reactive_imp THEN 'reactive_imp_kvarh' END,
        CASE WHEN no_reactive_exp THEN 'reactive_exp_kvarh' END,
        CASE WHEN no_power THEN 'p_kw' END,
        CASE WHEN no_current THEN 'i_a_a' END
    ) AS missing
FROM (
    SELECT
        meter_id,
        ts,
        coalesce(reading_kind, 'instant') AS reading_kind,
        energy_exp_kwh IS NULL AND count(energy_exp_kwh) OVER w > 0 AS no_export,
        reactive_imp_kvarh IS NULL AND count(reactive_imp_kvarh) OVER w > 0 AS no_reactive_imp,
        reactive_exp_kvarh IS NULL AND count(reactive_exp_kvarh) OVER w > 0 AS no_reactive_exp,
        p_kw IS NULL AND count(p_kw) OVER w > 0 AS no_power,
        i_a_a IS NULL AND count(i_a_a) OVER w > 0 AS no_current
    FROM meter_readings
    WHERE energy_imp_kwh IS NOT NULL
    WINDOW w AS (
        PARTITION BY meter_id, coalesce(reading_kind, 'instant') ORDER BY ts RANGE INTERVAL '24 hours' PRECEDING
    )
) r
