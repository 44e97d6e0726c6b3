/*---
id    = "nexmark_q2"
kind  = "table"
title = "Bids on some auctions"
owner = "benches"
---*/
SELECT auction, price, date_time FROM bid WHERE auction % 123 = 0
