-- Voltage unbalance of the three-phase points of a stream.
SELECT
    meter_id AS key,
    round(max(nema_max_pct), 9) AS max_nema_pct,
    first_value(nema_max_ts ORDER BY nema_max_pct DESC, window_start) AS max_nema_ts,
    round(max(vuf_max_pct), 9) AS max_vuf_pct,
    first_value(vuf_max_ts ORDER BY vuf_max_pct DESC, window_start) AS max_vuf_ts,
    round(percentile_cont(0.95) WITHIN GROUP (ORDER BY vuf_rms_pct), 9) AS vuf_10min_p95_pct,
    count(*) FILTER (WHERE vuf_rms_pct > 2) AS vuf_10min_over_2pct
FROM unbalance_windows
WHERE source = '$stream'
GROUP BY meter_id
