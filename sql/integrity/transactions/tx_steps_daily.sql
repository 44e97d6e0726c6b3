/*---
id          = "tx_steps_daily"
kind        = "table"
title       = "Events, cases and amounts of each process step and local day"
category    = "business"
entity      = ["process_type", "step"]
standard    = "internal"
owner       = "billing"
description = """
`cases` counts the distinct cases of one day; it does not add up over days, `events` and `amount_total` do.
Days are those of UTC+8.
"""
---*/
SELECT
    process_type,
    step,
    window_start,
    window_end,
    CAST(window_start + INTERVAL '8 hours' AS DATE) AS local_date,
    count(*) AS events,
    count(DISTINCT case_id) AS cases,
    sum(amount) AS amount_total
FROM TUMBLE(business_transactions, event_ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
GROUP BY process_type, step, window_start, window_end
