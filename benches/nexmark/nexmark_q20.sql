/*---
id    = "nexmark_q20"
kind  = "table"
title = "Bids with their auction, of one category"
owner = "benches"
description = "A bid is joined to an auction opened up to 10 minutes before."
---*/
SELECT b.auction, b.bidder, b.price, b.channel, b.date_time, a.item_name, a.seller, a.category, a.expires
FROM bid b
JOIN auction a ON a.id = b.auction AND b.date_time BETWEEN a.date_time AND a.date_time + INTERVAL '10 minutes'
WHERE a.category = 10
