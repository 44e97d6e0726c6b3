-- Voltage unbalance of the three-phase points of a stream. The 95 % value lies between two windows, in proportion: each counts
-- by how near its rank is to 0.95 of the last rank.
WITH ranked AS (
    SELECT
        *,
        row_number() OVER (PARTITION BY meter_id ORDER BY vuf_rms_pct) - 1 AS rank,
        count(*) OVER (PARTITION BY meter_id) - 1 AS last_rank
    FROM unbalance_windows
    WHERE source = '$stream'
)
SELECT
    meter_id AS key,
    round(max(nema_max_pct), 9) AS max_nema_pct,
    first_value(nema_max_ts ORDER BY nema_max_pct DESC, window_start) AS max_nema_ts,
    round(max(vuf_max_pct), 9) AS max_vuf_pct,
    first_value(vuf_max_ts ORDER BY vuf_max_pct DESC, window_start) AS max_vuf_ts,
    round(sum(vuf_rms_pct * CAST(greatest(1 - abs(rank - 0.95 * last_rank), 0) AS DOUBLE)), 9) AS vuf_10min_p95_pct,
    count(*) FILTER (WHERE vuf_rms_pct > 2) AS vuf_10min_over_2pct
FROM ranked
GROUP BY meter_id
