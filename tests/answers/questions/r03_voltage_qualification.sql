-- Share of the voltages of a stream that are within +7 % and -10 % of $nominal_v V, and the meter with the lowest.
WITH rates AS (
    SELECT
        meter_id,
        samples,
        outside,
        round(100 * (1 - CAST(outside AS DOUBLE) / samples), 9) AS rate_pct
    FROM (
        SELECT meter_id, sum(samples) AS samples, sum(outside) AS outside
        FROM voltage_days
        WHERE source = '$stream' AND nominal_v = $nominal_v
        GROUP BY meter_id
    )
)
SELECT
    first_value(meter_id ORDER BY rate_pct, meter_id) AS $worst,
    map(
        array_agg(meter_id ORDER BY meter_id),
        array_agg(named_struct('samples', samples, 'out', outside, 'rate_pct', rate_pct) ORDER BY meter_id)
    ) AS "all"
FROM rates
