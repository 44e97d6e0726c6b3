/*---
id    = "nexmark_q11"
kind  = "table"
title = "Bids of each session of a bidder"
owner = "benches"
---*/
SELECT bidder, count(*) AS bids, window_start, window_end
FROM SESSION(bid, date_time, INTERVAL '10 seconds', bidder)
GROUP BY bidder, window_start, window_end
