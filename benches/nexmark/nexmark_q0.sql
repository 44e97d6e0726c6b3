/*---
id    = "nexmark_q0"
kind  = "table"
title = "Pass through"
owner = "benches"
---*/
SELECT auction, bidder, price, date_time FROM bid
