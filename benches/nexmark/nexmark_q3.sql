/*---
id    = "nexmark_q3"
kind  = "table"
title = "Items of one category sold by people of three states"
owner = "benches"
description = "An auction is joined to a seller who registered up to 10 minutes before."
---*/
SELECT p.name, p.city, p.state, a.id, a.date_time
FROM auction a
JOIN person p ON p.id = a.seller AND a.date_time BETWEEN p.date_time AND p.date_time + INTERVAL '10 minutes'
WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')
