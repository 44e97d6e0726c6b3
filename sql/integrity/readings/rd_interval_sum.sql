/*---
id          = "rd_interval_sum"
kind        = "alert"
title       = "Interval energies of the day differ from the advance of the register"
title_zh    = "分时段电量之和与示度差不符"
severity    = "warning"
version     = "1.1"
entity      = "meter_id"
category    = "integrity"
unit        = "kWh"
standard    = "internal"
owner       = "metering"
description = """
Adds up the energy of the intervals (`interval_imp_kwh`) of a local day and compares it with the register of imported
energy at its end less that at its end the day before. Fires when they differ by more than `tolerance_pct` of the latter
and by more than `tolerance_kwh`: an interval is missing or was counted twice, or register and profile have different
multipliers. A register that rolled over is taken into account (digits from `meter_installations` as of its reading,
else the parameter). A day on which a row of `meter_installations` begins (after the first midnight, up to the second)
says nothing: its two registers are those of two meters, or in two units. A reading stamped at midnight closes the day
before it. Judged are days whose intervals, by `interval_s` of the readings, else `period_s`, cover the whole day once,
and which have the register at both midnights; other days say nothing. Days are those of UTC+8: the windows begin a
microsecond after midnight, so that midnight belongs to the day that it ends. Not seen: errors that are in both, days
with gaps (see rd_gap).
"""
params      = { tolerance_pct = 0.5, tolerance_kwh = 1.0, period_s = 900, digits = 6 }
---*/
WITH readings AS (
    SELECT
        r.meter_id,
        r.ts,
        r.interval_s,
        r.interval_imp_kwh,
        r.energy_imp_kwh,
        i.register_digits,
        i.valid_from AS installed_at
    FROM meter_readings r
    LEFT JOIN meter_installations i ON i.meter_id = r.meter_id
),
days AS (
    SELECT
        meter_id,
        window_start,
        window_end,
        sum(interval_imp_kwh) AS intervals_kwh,
        sum(coalesce(interval_s, $period_s)) FILTER (WHERE interval_imp_kwh IS NOT NULL) AS covered_s,
        count(interval_imp_kwh) AS intervals,
        count(DISTINCT ts) FILTER (WHERE interval_imp_kwh IS NOT NULL) AS instants,
        max(energy_imp_kwh) FILTER (WHERE ts = window_end - INTERVAL '1 microsecond') AS register_kwh,
        max(register_digits) FILTER (WHERE ts = window_end - INTERVAL '1 microsecond') AS register_digits,
        max(installed_at) FILTER (WHERE ts = window_end - INTERVAL '1 microsecond') AS installed_at
    FROM TUMBLE(readings, ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00.000001Z')
    GROUP BY meter_id, window_start, window_end
),
steps AS (
    SELECT
        *,
        lag(register_kwh) OVER (PARTITION BY meter_id ORDER BY window_start) AS previous_kwh,
        lag(window_end) OVER (PARTITION BY meter_id ORDER BY window_start) AS previous_end
    FROM days
),
advances AS (
    SELECT
        s.meter_id,
        s.window_start,
        s.window_end,
        s.intervals_kwh,
        s.intervals,
        register_delta_kwh(
            s.previous_kwh,
            s.register_kwh,
            CASE WHEN s.register_digits BETWEEN 1 AND 14 THEN s.register_digits ELSE $digits END
        ) AS advance_kwh
    FROM steps s
    WHERE s.previous_end = s.window_start AND s.covered_s = 86400 AND s.intervals = s.instants
        -- The previous register is that of a microsecond before the window.
        AND (s.installed_at IS NULL OR s.installed_at < s.window_start)
)
SELECT
    meter_id,
    window_start,
    window_end,
    abs(intervals_kwh - advance_kwh) > $tolerance_kwh
        AND abs(intervals_kwh - advance_kwh) * 100 > advance_kwh * $tolerance_pct AS firing,
    intervals_kwh AS measured,
    CAST(advance_kwh - greatest($tolerance_kwh, advance_kwh * $tolerance_pct / 100) AS DECIMAL(24, 6)) AS limit_low,
    CAST(advance_kwh + greatest($tolerance_kwh, advance_kwh * $tolerance_pct / 100) AS DECIMAL(24, 6)) AS limit_high,
    'kWh' AS unit,
    advance_kwh,
    intervals,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_date
FROM advances
WHERE advance_kwh IS NOT NULL
