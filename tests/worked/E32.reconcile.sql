-- Reconciliation of an account: what was billed without what was paid, less the reversals; in exact decimals.
WITH entries AS (
    SELECT n, 'billed' AS kind, unnest(billed) AS amount FROM example
    UNION ALL
    SELECT n, 'paid', unnest(paid) FROM example
    UNION ALL
    SELECT n, 'reversal', unnest(reversal) FROM example
),
sums AS (
    SELECT
        n,
        coalesce(sum(CAST(amount AS DECIMAL(18, 2))) FILTER (WHERE kind = 'billed'), 0.00) AS billed_sum,
        coalesce(sum(CAST(amount AS DECIMAL(18, 2))) FILTER (WHERE kind IN ('paid', 'reversal')), 0.00) AS paid_net
    FROM entries
    GROUP BY n
)
SELECT
    n,
    CAST(billed_sum AS VARCHAR) AS billed_sum,
    CAST(paid_net AS VARCHAR) AS paid_net,
    CAST(billed_sum - paid_net AS VARCHAR) AS arrears
FROM sums
