-- Bill by time of use: energy times price of the sharp, peak, flat and valley hours, rounded half up once.
SELECT
    n,
    sum(kwh) AS kwh,
    CAST(CAST(sum(kwh * price) AS DECIMAL(18, 2)) AS VARCHAR) AS amount,
    CAST(CAST(sum(kwh * price) AS DECIMAL(18, 4)) AS VARCHAR) AS amount_exact
FROM (
    SELECT n, CAST(period[1] AS BIGINT) AS kwh, CAST(period[2] AS DECIMAL(8, 4)) AS price
    FROM (SELECT n, unnest([kwh_price_sharp, kwh_price_peak, kwh_price_flat, kwh_price_valley]) AS period FROM example) p
) t
GROUP BY n
