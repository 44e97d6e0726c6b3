/*---
id          = "pq_voltage_qualification"
kind        = "table"
title       = "Voltage qualification rate of each meter and local day"
standard    = "GB/T 12325-2008"
clause      = "5"
category    = "pq"
entity      = "meter_id"
owner       = "power-quality"
description = """
Share of the reported phase voltages that lie inside the limits, of all that were reported while the supply was on:
samples below `outage_pct` of nominal are outage, not run time, and leave the rate. A value equal to a limit is inside.
Days are those of UTC+8 (they begin at 16:00 UTC): change the origin of the window for another zone. Rates of a month
or a feeder are sums of `samples` and `outside_low` + `outside_high` over these rows, never means of the rates.
"""
params      = { upper_pct = 7.0, lower_pct = -10.0, outage_pct = 10.0 }
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_date,
    samples,
    outside_high,
    outside_low,
    outage_samples,
    round(100 * CAST(samples - outside_high - outside_low AS DOUBLE) / samples, 9) AS rate_pct
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        count(*) FILTER (WHERE a_v >= outage_v) + count(*) FILTER (WHERE b_v >= outage_v)
            + count(*) FILTER (WHERE c_v >= outage_v) AS samples,
        count(*) FILTER (WHERE a_v > limit_high_v) + count(*) FILTER (WHERE b_v > limit_high_v)
            + count(*) FILTER (WHERE c_v > limit_high_v) AS outside_high,
        count(*) FILTER (WHERE a_v >= outage_v AND a_v < limit_low_v)
            + count(*) FILTER (WHERE b_v >= outage_v AND b_v < limit_low_v)
            + count(*) FILTER (WHERE c_v >= outage_v AND c_v < limit_low_v) AS outside_low,
        count(*) FILTER (WHERE a_v < outage_v) + count(*) FILTER (WHERE b_v < outage_v)
            + count(*) FILTER (WHERE c_v < outage_v) AS outage_samples
    FROM (
        SELECT
            r.meter_id,
            r.window_start,
            r.window_end,
            TRY_CAST(r.u_a_v AS DECIMAL(12, 6)) AS a_v,
            TRY_CAST(r.u_b_v AS DECIMAL(12, 6)) AS b_v,
            TRY_CAST(r.u_c_v AS DECIMAL(12, 6)) AS c_v,
            CAST(m.nominal_v AS DECIMAL(9, 3)) * (1 + $upper_pct / 100) AS limit_high_v,
            CAST(m.nominal_v AS DECIMAL(9, 3)) * (1 + $lower_pct / 100) AS limit_low_v,
            CAST(m.nominal_v AS DECIMAL(9, 3)) * ($outage_pct / 100) AS outage_v
        FROM TUMBLE(meter_readings, ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z') r
        JOIN meters m ON m.meter_id = r.meter_id
    ) v
    GROUP BY meter_id, window_start, window_end
) d
WHERE samples > 0
