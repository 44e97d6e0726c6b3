/*---
id    = "nexmark_q22"
kind  = "table"
title = "Folders of the link of each bid"
owner = "benches"
---*/
SELECT
    auction,
    bidder,
    price,
    channel,
    date_time,
    split_part(url, '/', 4) AS dir1,
    split_part(url, '/', 5) AS dir2,
    split_part(url, '/', 6) AS dir3
FROM bid
