-- Loss of the feeder LVTest: what its head supplied less what its customers got.
WITH energy AS (
    SELECT
        CAST(sum(p_sum_kw) FILTER (WHERE m.kind = 'feeder_head') AS DECIMAL(28, 15)) / 60 AS supplied,
        CAST(sum(p_sum_kw) FILTER (WHERE m.kind = 'customer') AS DECIMAL(28, 15)) / 60 AS sold
    FROM quarter_hours q
    JOIN meters m ON m.meter_id = q.meter_id
    WHERE m.feeder = 'LVTest'
)
SELECT
    CAST(supplied AS DECIMAL(18, 9)) AS supplied_kwh,
    CAST(sold AS DECIMAL(18, 9)) AS sold_kwh,
    CAST(supplied - sold AS DECIMAL(18, 9)) AS loss_kwh,
    round(100 * CAST(supplied - sold AS DOUBLE) / CAST(supplied AS DOUBLE), 9) AS loss_pct
FROM energy
