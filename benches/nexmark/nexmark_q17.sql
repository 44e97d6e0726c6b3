/*---
id    = "nexmark_q17"
kind  = "table"
title = "Statistics of each auction and day"
owner = "benches"
---*/
SELECT
    auction,
    window_start,
    window_end,
    count(*) AS total_bids,
    count(*) FILTER (WHERE price < 10000) AS rank1_bids,
    count(*) FILTER (WHERE price >= 10000 AND price < 50000) AS rank2_bids,
    count(*) FILTER (WHERE price >= 50000) AS rank3_bids,
    min(price) AS min_price,
    max(price) AS max_price,
    CAST(avg(CAST(price AS DECIMAL(18, 0))) AS DECIMAL(18, 4)) AS avg_price,
    sum(price) AS sum_price
FROM TUMBLE(bid, date_time, INTERVAL '1 day')
GROUP BY auction, window_start, window_end
