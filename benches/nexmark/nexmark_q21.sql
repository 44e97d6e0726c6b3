/*---
id    = "nexmark_q21"
kind  = "table"
title = "Channel number of each bid"
owner = "benches"
---*/
SELECT
    auction,
    bidder,
    price,
    channel,
    date_time,
    CASE lower(channel)
        WHEN 'apple' THEN '0'
        WHEN 'google' THEN '1'
        WHEN 'facebook' THEN '2'
        WHEN 'baidu' THEN '3'
        ELSE split_part(split_part(url, 'channel_id=', 2), '&', 1)
    END AS channel_id
FROM bid
WHERE lower(channel) IN ('apple', 'google', 'facebook', 'baidu') OR url LIKE '%channel_id=%'
