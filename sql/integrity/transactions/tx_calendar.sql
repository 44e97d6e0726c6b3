/*---
id          = "tx_calendar"
kind        = "view"
title       = "Days off and make-up workdays as two lists"
title_zh    = "工作日历"
category    = "business"
standard    = "internal"
owner       = "customer service"
description = """
The table `holidays` as add_working_days and working_days_between take it: days of kind `holiday`, and weekend days of
kind `workday`, which are worked in exchange. Weekends need no rows. A year for which the table has none counts as one
without holidays, so put in each year before it begins.
"""
---*/
SELECT
    coalesce(array_agg(day ORDER BY day) FILTER (WHERE kind = 'holiday'), CAST([] AS DATE[])) AS days_off,
    coalesce(array_agg(day ORDER BY day) FILTER (WHERE kind = 'workday'), CAST([] AS DATE[])) AS days_worked
FROM holidays
