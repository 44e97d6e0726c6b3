/*---
id    = "nexmark_q8"
kind  = "table"
title = "People who opened an auction as soon as they had registered"
owner = "benches"
---*/
SELECT p.id, p.name, p.window_start, p.window_end
FROM (
    SELECT id, name, window_start, window_end
    FROM TUMBLE(person, date_time, INTERVAL '10 seconds')
    GROUP BY id, name, window_start, window_end
) p
JOIN (
    SELECT seller, window_start, window_end
    FROM TUMBLE(auction, date_time, INTERVAL '10 seconds')
    GROUP BY seller, window_start, window_end
) a ON a.seller = p.id AND a.window_start = p.window_start AND a.window_end = p.window_end
