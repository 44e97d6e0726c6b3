/*---
id          = "an_theft_signals"
kind        = "view"
title       = "Signs of energy theft of each meter and week"
title_zh    = "窃电嫌疑信号"
category    = "anomaly"
entity      = "meter_id"
standard    = "internal"
owner       = "analytics"
description = """
What the single rules say of a meter in a week (from Monday, UTC+8), in one form: `signal`, the beginning of the week `at`,
and whether it `fired` in it. Rows that did not fire are there too, so that a score can come down again.
"""
---*/
SELECT meter_id, window_start AS at, 'usage_drop' AS signal, coalesce(firing, FALSE) AS fired
FROM an_usage_drop
UNION ALL
SELECT meter_id, window_start, 'loss_suspect', coalesce(firing, FALSE)
FROM an_loss_suspect
UNION ALL
SELECT meter_id, window_start, 'peer_usage', coalesce(firing, FALSE)
FROM an_peer_usage
UNION ALL
SELECT meter_id, window_start, 'neutral_current', bool_or(coalesce(firing, FALSE))
FROM TUMBLE(an_neutral_current, ts, INTERVAL '7 days', 'Asia/Shanghai', DATE '1970-01-05')
GROUP BY meter_id, window_start, window_end
UNION ALL
SELECT meter_id, window_start, 'tamper', TRUE
FROM TUMBLE(an_tamper_events, start_ts, INTERVAL '7 days', 'Asia/Shanghai', DATE '1970-01-05')
GROUP BY meter_id, window_start, window_end
