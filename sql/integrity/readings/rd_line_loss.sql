/*---
id          = "rd_line_loss"
kind        = "table"
title       = "Line loss of each feeder and local day"
category    = "integrity"
entity      = "feeder"
unit        = "kWh"
standard    = "internal"
owner       = "metering"
description = """
Supplied energy (meters of kind `feeder_head`) less sold energy (meters of kind `customer`), by the meters that belonged
to the feeder at the time of each reading. Believe a row only when `meters_sold` is the full number of customers and both
`covered_*_pct` are near 100: a missing meter looks like loss. A reading without `interval_s` counts for `sample_s`.
Days are those of UTC+8.
"""
params      = { sample_s = 60 }
---*/
SELECT
    feeder,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_date,
    CAST(supplied_kws / 3600 AS DECIMAL(28, 9)) AS supplied_kwh,
    CAST(sold_kws / 3600 AS DECIMAL(28, 9)) AS sold_kwh,
    CAST((supplied_kws - sold_kws) / 3600 AS DECIMAL(28, 9)) AS loss_kwh,
    CASE
        WHEN supplied_kws > 0
            THEN round(100 * CAST(supplied_kws - sold_kws AS DOUBLE) / CAST(supplied_kws AS DOUBLE), 9)
    END AS loss_pct,
    meters_supply,
    meters_sold,
    round(100 * CAST(covered_supply_s AS DOUBLE) / (meters_supply * 86400), 6) AS covered_supply_pct,
    round(100 * CAST(covered_sold_s AS DOUBLE) / (meters_sold * 86400), 6) AS covered_sold_pct
FROM (
    SELECT
        feeder,
        window_start,
        window_end,
        CAST(sum(energy_kws) FILTER (WHERE kind = 'feeder_head') AS DECIMAL(28, 6)) AS supplied_kws,
        CAST(sum(energy_kws) FILTER (WHERE kind = 'customer') AS DECIMAL(28, 6)) AS sold_kws,
        count(DISTINCT CASE WHEN kind = 'feeder_head' THEN meter_id END) AS meters_supply,
        count(DISTINCT CASE WHEN kind = 'customer' THEN meter_id END) AS meters_sold,
        sum(interval_s) FILTER (WHERE kind = 'feeder_head') AS covered_supply_s,
        sum(interval_s) FILTER (WHERE kind = 'customer') AS covered_sold_s
    FROM (
        SELECT
            m.feeder,
            m.kind,
            r.meter_id,
            r.window_start,
            r.window_end,
            coalesce(r.interval_s, $sample_s) AS interval_s,
            TRY_CAST(r.p_kw AS DECIMAL(15, 6)) * coalesce(r.interval_s, $sample_s) AS energy_kws
        FROM TUMBLE(meter_readings, ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z') r
        JOIN meters m ON m.meter_id = r.meter_id
        WHERE TRY_CAST(r.p_kw AS DECIMAL(15, 6)) IS NOT NULL
    ) e
    WHERE feeder IS NOT NULL AND feeder <> ''
    GROUP BY feeder, window_start, window_end
) f
WHERE meters_supply > 0 AND meters_sold > 0
