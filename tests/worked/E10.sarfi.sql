-- IEEE 1564, GB/T 30137 annex: customers that saw an event below x % of nominal, over all customers; an event at x % does not count.
SELECT
    n,
    round(sum(customers) FILTER (WHERE residual_pu < 0.9) / min(customers_total), 6) AS "SARFI_90",
    round(sum(customers) FILTER (WHERE residual_pu < 0.7) / min(customers_total), 6) AS "SARFI_70",
    round(sum(customers) FILTER (WHERE residual_pu < 0.5) / min(customers_total), 6) AS "SARFI_50"
FROM (
    SELECT n, customers_total, CAST(event[1] AS DECIMAL(9, 6)) AS residual_pu, event[2] AS customers
    FROM (SELECT n, customers_total, unnest(events_residual_pu_customers) AS event FROM example) u
) e
GROUP BY n
