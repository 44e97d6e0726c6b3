/*---
id          = "an_theft_score"
kind        = "alert"
title       = "Several signs of energy theft at one meter"
title_zh    = "窃电嫌疑综合评分"
severity    = "warning"
entity      = "meter_id"
category    = "anomaly"
unit        = "points"
standard    = "internal"
owner       = "analytics"
description = """
Adds up the weights (`theft_weights`, which make 100 together) of the different signs of an_theft_signals that a meter
showed within four weeks (a window ends every Sunday, UTC+8), each sign once, however often it came, and fires from
`alert_score`, critical from `critical_score`. `signals` names them. No single sign is a proof, and the score is none: it
says whom to visit first. A meter that was visited keeps its signs until they are four weeks old. Resolves with a window
below the limit. A sign for which data are missing counts as not shown: a low score clears nobody. Kept are the signs of
four weeks. Not seen: what the single rules do not see; the correlation with the loss of the feeder
(an_loss_correlation) is not in it. The weights are ours, by judgement, not learned from cases.
"""
[params]
alert_score    = 50
critical_score = 75
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    score >= $alert_score AS firing,
    CASE WHEN score >= $critical_score THEN 'critical' ELSE 'warning' END AS severity,
    score AS measured,
    $alert_score AS limit_high,
    'points' AS unit,
    signals,
    signal_count
FROM (
    SELECT
        meter_id,
        window_start,
        window_end,
        CAST(coalesce(sum(points), 0) AS DECIMAL(7, 2)) AS score,
        coalesce(string_agg(signal, ' ' ORDER BY signal) FILTER (WHERE points > 0), '') AS signals,
        count(*) FILTER (WHERE points > 0) AS signal_count
    FROM (
        SELECT
            s.meter_id,
            s.window_start,
            s.window_end,
            s.signal,
            CASE WHEN s.fired THEN coalesce(TRY_CAST(t.weight AS DECIMAL(5, 2)), 0) ELSE 0 END AS points
        FROM (
            SELECT meter_id, signal, window_start, window_end, bool_or(fired) AS fired
            FROM HOP(an_theft_signals, at, INTERVAL '7 days', INTERVAL '28 days', TIMESTAMP '1970-01-04T16:00:00Z')
            GROUP BY meter_id, signal, window_start, window_end
        ) s
        LEFT JOIN theft_weights t
            ON t.signal = s.signal
            AND (t.valid_from IS NULL OR t.valid_from <= s.window_end)
            AND (t.valid_to IS NULL OR t.valid_to > s.window_end)
    ) p
    GROUP BY meter_id, window_start, window_end
) c
