/*---
id    = "nexmark_q14"
kind  = "table"
title = "Filter and calculation"
owner = "benches"
---*/
SELECT
    auction,
    bidder,
    price * 0.908 AS price,
    CASE
        WHEN date_part('hour', date_time) BETWEEN 8 AND 18 THEN 'dayTime'
        WHEN date_part('hour', date_time) <= 6 OR date_part('hour', date_time) >= 20 THEN 'nightTime'
        ELSE 'otherTime'
    END AS bid_time_type,
    date_time,
    length(url) - length(replace(url, 'c', '')) AS c_counts
FROM bid
WHERE price * 0.908 > 5000 AND price * 0.908 < 50000
