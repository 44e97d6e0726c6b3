/*---
id    = "nexmark_q1"
kind  = "table"
title = "Bids in another currency"
owner = "benches"
---*/
SELECT auction, bidder, price * 0.908 AS price, date_time FROM bid
