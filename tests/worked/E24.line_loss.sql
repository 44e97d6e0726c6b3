-- Loss of a transformer area: what was supplied and fed in by photovoltaics, without what the meters counted.
SELECT
    n,
    supplied_kwh - metered_kwh AS loss_kwh,
    CAST((supplied_kwh - metered_kwh) * 100 / nullif(supplied_kwh, 0) AS DECIMAL(12, 6)) AS loss_rate_pct
FROM (
    SELECT
        n,
        CAST(supply_kwh AS DECIMAL(18, 4)) + CAST(pv_feed_in_kwh AS DECIMAL(18, 4)) AS supplied_kwh,
        CAST(sum_meters_kwh AS DECIMAL(18, 4)) AS metered_kwh
    FROM example
) l
