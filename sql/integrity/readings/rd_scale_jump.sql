/*---
id          = "rd_scale_jump"
kind        = "alert"
title       = "Values of a meter are a power of ten off their usual size"
title_zh    = "量纲或倍率跳变(相差十的幂)"
severity    = "warning"
entity      = ["meter_id", "channel"]
category    = "integrity"
standard    = "internal"
owner       = "metering"
description = """
Compares the values of an hour with the median of the hourly medians of the 30 days before, for the voltages, the
frequency and the total power. Fires when there are at least `samples` values and all of them are, within
`tolerance_pct`, the same power of ten (10, 100, 1000, 0.1, ...) times that median: a unit or a scale was changed at the
meter, the head end or the mapping. `factor` names it, `measured` is the median of the hour. Resolves with an hour that
is no power of ten off.
It takes `min_hours` hours with values before. State: the medians of 720 hours for each channel.
After 15 days at the new scale that is the usual one, and the alert resolves. Not seen: power that varies by more than the
tolerance within the hour, a scale by another factor (see rd_ratio_step), and values that are 0.
"""
params      = { tolerance_pct = 2.0, samples = 3, min_hours = 24 }
---*/
WITH channels AS (
    SELECT meter_id, ts, item['channel'] AS channel, item['unit'] AS unit, TRY_CAST(item['value'] AS DECIMAL(15, 6)) AS value
    FROM (
        SELECT
            meter_id,
            ts,
            unnest([
                named_struct('channel', 'u_a_v', 'unit', 'V', 'value', u_a_v),
                named_struct('channel', 'u_b_v', 'unit', 'V', 'value', u_b_v),
                named_struct('channel', 'u_c_v', 'unit', 'V', 'value', u_c_v),
                named_struct('channel', 'freq_hz', 'unit', 'Hz', 'value', freq_hz),
                named_struct('channel', 'p_kw', 'unit', 'kW', 'value', p_kw)
            ]) AS item
        FROM meter_readings
    ) l
),
hours AS (
    SELECT
        meter_id,
        channel,
        window_start,
        window_end,
        max(unit) AS unit,
        count(*) AS samples,
        min(value) AS lowest,
        max(value) AS highest,
        CAST(median(value) AS DECIMAL(18, 6)) AS middle
    FROM TUMBLE(channels, ts, INTERVAL '1 hour')
    WHERE value IS NOT NULL
    GROUP BY meter_id, channel, window_start, window_end
),
compared AS (
    SELECT
        *,
        CAST(median(middle) OVER w AS DECIMAL(18, 6)) AS usual,
        count(middle) OVER w AS hours_before
    FROM hours
    WINDOW w AS (
        PARTITION BY meter_id, channel ORDER BY window_start
        RANGE BETWEEN INTERVAL '30 days' PRECEDING AND INTERVAL '1 hour' PRECEDING
    )
),
scaled AS (
    -- The power of ten that is nearest to the quotient; floats choose it, decimals compare.
    SELECT
        *,
        CAST(
            power(10.0, greatest(least(round(log10(CAST(middle AS DOUBLE) / CAST(usual AS DOUBLE))), 8.0), -8.0))
            AS DECIMAL(20, 8)
        ) AS factor
    FROM compared
    WHERE middle <> 0 AND usual <> 0 AND (middle > 0) = (usual > 0) AND hours_before >= $min_hours
)
SELECT
    meter_id,
    channel,
    window_start,
    window_end,
    CASE
        WHEN factor = 1 THEN false
        WHEN samples >= $samples
            THEN least(abs(lowest), abs(highest)) * 100 >= abs(usual) * factor * (100 - $tolerance_pct)
                AND greatest(abs(lowest), abs(highest)) * 100 <= abs(usual) * factor * (100 + $tolerance_pct)
    END AS firing,
    middle AS measured,
    unit,
    usual,
    factor,
    lowest,
    highest,
    samples,
    hours_before
FROM scaled
