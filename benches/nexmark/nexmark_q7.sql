/*---
id    = "nexmark_q7"
kind  = "table"
title = "Highest bids of each 10 seconds"
owner = "benches"
---*/
SELECT auction, price, bidder, date_time, window_end
FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
QUALIFY rank() OVER (PARTITION BY window_end ORDER BY price DESC) = 1
