-- Completeness of readings: the slots of a day without one, the runs of them, and the share that came.
WITH missing AS (
    SELECT n, unnest(array_except(range(0, expected), CAST(slots_present AS BIGINT[]))) AS slot
    FROM example
),
runs AS (
    SELECT n, min(slot) AS first_slot, max(slot) AS last_slot, count(*) AS slots
    FROM (SELECT n, slot, slot - row_number() OVER (PARTITION BY n ORDER BY slot) AS run FROM missing) m
    GROUP BY n, run
)
SELECT
    e.n,
    coalesce(sum(r.slots), 0) AS missing,
    coalesce(array_agg([r.first_slot, r.last_slot] ORDER BY r.first_slot) FILTER (WHERE r.n IS NOT NULL), []) AS runs,
    coalesce(max(r.slots), 0) AS longest,
    round(100 * (1 - CAST(coalesce(sum(r.slots), 0) AS DOUBLE) / min(e.expected)), 6) AS completeness_pct
FROM example e
LEFT JOIN runs r ON r.n = e.n
GROUP BY e.n
