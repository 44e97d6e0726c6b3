/*---
id    = "nexmark_q19"
kind  = "table"
title = "Ten highest bids of each auction in the hour"
owner = "benches"
description = "The highest of each hour: the highest of all are never known."
---*/
SELECT auction, bidder, price, date_time, window_end, place
FROM (
    SELECT *, row_number() OVER (PARTITION BY window_end, auction ORDER BY price DESC, date_time) AS place
    FROM TUMBLE(bid, date_time, INTERVAL '1 hour')
)
WHERE place <= 10
