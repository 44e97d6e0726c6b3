/*---
id    = "nexmark_q5"
kind  = "table"
title = "Auctions with the most bids of the last 10 seconds"
owner = "benches"
---*/
SELECT auction, num, window_start, window_end
FROM (
    SELECT auction, window_start, window_end, count(*) AS num
    FROM HOP(bid, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
    GROUP BY auction, window_start, window_end
)
QUALIFY rank() OVER (PARTITION BY window_start, window_end ORDER BY num DESC) = 1
