-- Bill under tiers of a month, rounded half up once, with the energy and amount of each tier.
WITH tiers AS (
    SELECT n, kwh, unnest(range(0, array_length(tiers))) AS tier_no, unnest(tiers) AS tier
    FROM example
),
bounds AS (
    SELECT
        n,
        kwh,
        tier_no,
        coalesce(lag(CAST(tier[1] AS BIGINT)) OVER (PARTITION BY n ORDER BY tier_no), 0) AS from_kwh,
        CAST(tier[1] AS BIGINT) AS up_to_kwh,
        CAST(tier[2] AS DECIMAL(8, 4)) AS price
    FROM tiers
),
parts AS (SELECT *, least(kwh, up_to_kwh) - from_kwh AS part_kwh FROM bounds)
SELECT
    n,
    CAST(tiered_amount(
        0,
        min(kwh),
        array_agg(up_to_kwh ORDER BY tier_no) FILTER (WHERE up_to_kwh IS NOT NULL),
        array_agg(price ORDER BY tier_no)
    ) AS VARCHAR) AS amount,
    array_agg([CAST(part_kwh AS VARCHAR), CAST(price AS VARCHAR), CAST(part_kwh * price AS VARCHAR)] ORDER BY tier_no)
        FILTER (WHERE part_kwh > 0) AS detail
FROM parts
GROUP BY n
