/*---
id    = "nexmark_q4"
kind  = "table"
title = "Average closing price of each category"
owner = "benches"
description = "Averages over the auctions opened in one minute; an auction takes bids for 10 minutes at most."
---*/
WITH offers AS (
    SELECT a.id, a.category, a.date_time AS opened, b.price
    FROM auction a
    JOIN bid b ON b.auction = a.id AND b.date_time BETWEEN a.date_time AND a.date_time + INTERVAL '10 minutes'
    WHERE b.date_time <= a.expires
),
closed AS (
    SELECT id, category, window_start, window_end, max(price) AS final
    FROM TUMBLE(offers, opened, INTERVAL '1 minute')
    GROUP BY id, category, window_start, window_end
)
SELECT category, window_start, window_end, avg(final) AS average
FROM closed
GROUP BY category, window_start, window_end
