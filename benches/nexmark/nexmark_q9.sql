/*---
id    = "nexmark_q9"
kind  = "table"
title = "Winning bid of each auction"
owner = "benches"
description = "An auction takes bids for 10 minutes at most."
---*/
WITH offers AS (
    SELECT a.id, a.item_name, a.seller, a.category, a.date_time AS opened, b.bidder, b.price, b.date_time AS bid_time
    FROM auction a
    JOIN bid b ON b.auction = a.id AND b.date_time BETWEEN a.date_time AND a.date_time + INTERVAL '10 minutes'
    WHERE b.date_time <= a.expires
)
SELECT id, item_name, seller, category, opened, bidder, price, bid_time
FROM TUMBLE(offers, opened, INTERVAL '1 minute')
QUALIFY row_number() OVER (PARTITION BY window_start, id ORDER BY price DESC, bid_time, bidder) = 1
