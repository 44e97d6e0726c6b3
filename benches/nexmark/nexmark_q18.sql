/*---
id    = "nexmark_q18"
kind  = "table"
title = "Last bid of each bidder on each auction in the hour"
owner = "benches"
description = "The last of each hour: the last of all is never known."
---*/
SELECT auction, bidder, price, channel, date_time, window_end
FROM TUMBLE(bid, date_time, INTERVAL '1 hour')
QUALIFY row_number() OVER (PARTITION BY window_end, bidder, auction ORDER BY date_time DESC) = 1
