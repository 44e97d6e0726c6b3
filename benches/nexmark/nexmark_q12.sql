/*---
id    = "nexmark_q12"
kind  = "table"
title = "Bids of a bidder in each 10 seconds"
owner = "benches"
description = "By event time: windows of the processing clock could not be repeated."
---*/
SELECT bidder, count(*) AS bids, window_start, window_end
FROM TUMBLE(bid, date_time, INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end
