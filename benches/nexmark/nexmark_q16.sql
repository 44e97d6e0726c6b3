/*---
id    = "nexmark_q16"
kind  = "table"
title = "Statistics of each channel and day"
owner = "benches"
---*/
SELECT
    channel,
    window_start,
    window_end,
    max(to_char(date_time, '%H:%M')) AS minute,
    count(*) AS total_bids,
    count(*) FILTER (WHERE price < 10000) AS rank1_bids,
    count(*) FILTER (WHERE price >= 10000 AND price < 50000) AS rank2_bids,
    count(*) FILTER (WHERE price >= 50000) AS rank3_bids,
    count(DISTINCT bidder) AS total_bidders,
    count(DISTINCT bidder) FILTER (WHERE price < 10000) AS rank1_bidders,
    count(DISTINCT auction) AS total_auctions,
    count(DISTINCT auction) FILTER (WHERE price >= 50000) AS rank3_auctions
FROM TUMBLE(bid, date_time, INTERVAL '1 day')
GROUP BY channel, window_start, window_end
