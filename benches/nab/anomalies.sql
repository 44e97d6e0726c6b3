/*---
id = "anomalies"
kind = "table"
title = "Anomaly score of each value"
---*/
SELECT
    series,
    row,
    ts,
    value,
    anomaly_score(value, ts) OVER (PARTITION BY series ORDER BY ts ROWS UNBOUNDED PRECEDING) AS score
FROM series
