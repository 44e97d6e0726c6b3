/*---
id    = "nexmark_q13"
kind  = "table"
title = "Bids with a column of a side table"
owner = "benches"
---*/
SELECT b.auction, b.bidder, b.price, b.date_time, s.value
FROM bid b
JOIN side_input s ON s.key = b.auction % 20
