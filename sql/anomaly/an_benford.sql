/*---
id          = "an_benford"
kind        = "alert"
title       = "First digits of amounts are not those of grown numbers"
title_zh    = "金额首位数字不符合本福特定律"
severity    = "info"
entity      = "operator_id"
category    = "anomaly"
unit        = "1"
standard    = "internal"
owner       = "analytics"
description = """
Compares how often the amounts of an operator in a month (UTC+8) begin with each digit with the law of F. Benford
(log10(1 + 1/d)), as the mean of the nine absolute differences of the shares, and fires above `max_deviation`; 0.015 is
the bound that M. Nigrini gives for first digits. Amounts that somebody made up, or that were split to stay below a limit,
show so. Needs `min_amounts` amounts, else the verdict is `insufficient_data`. Amounts of 0 and without operator are left
out. Tariffs with few fixed prices deviate by nature: leave such processes out with `processes`. Not seen: a few false
amounts among many true ones. A hint for an audit, no proof.
"""
[params]
processes     = "^(payment|refund)$"
max_deviation = 0.015
min_amounts   = 300
---*/
SELECT
    operator_id,
    window_start,
    window_end,
    CASE WHEN amounts >= $min_amounts THEN deviation > $max_deviation END AS firing,
    CASE
        WHEN amounts < $min_amounts THEN 'insufficient_data' WHEN deviation > $max_deviation THEN 'deviates' ELSE 'fits'
    END AS verdict,
    CASE WHEN amounts >= $min_amounts THEN deviation END AS measured,
    CAST($max_deviation AS DOUBLE) AS limit_high,
    amounts,
    digit_1,
    digit_9
FROM (
    SELECT
        operator_id,
        window_start,
        window_end,
        amounts,
        digit_1,
        digit_9,
        round((
            abs(digit_1 / n - log10(2))
            + abs(digit_2 / n - (log10(3) - log10(2)))
            + abs(digit_3 / n - (log10(4) - log10(3)))
            + abs(digit_4 / n - (log10(5) - log10(4)))
            + abs(digit_5 / n - (log10(6) - log10(5)))
            + abs(digit_6 / n - (log10(7) - log10(6)))
            + abs(digit_7 / n - (log10(8) - log10(7)))
            + abs(digit_8 / n - (log10(9) - log10(8)))
            + abs(digit_9 / n - (1 - log10(9)))
        ) / 9, 6) AS deviation
    FROM (
        SELECT
            operator_id,
            window_start,
            window_end,
            count(*) AS amounts,
            CAST(count(*) AS DOUBLE) AS n,
            count(*) FILTER (WHERE digit = '1') AS digit_1,
            count(*) FILTER (WHERE digit = '2') AS digit_2,
            count(*) FILTER (WHERE digit = '3') AS digit_3,
            count(*) FILTER (WHERE digit = '4') AS digit_4,
            count(*) FILTER (WHERE digit = '5') AS digit_5,
            count(*) FILTER (WHERE digit = '6') AS digit_6,
            count(*) FILTER (WHERE digit = '7') AS digit_7,
            count(*) FILTER (WHERE digit = '8') AS digit_8,
            count(*) FILTER (WHERE digit = '9') AS digit_9
        FROM TUMBLE((
            SELECT operator_id, event_ts, substr(ltrim(CAST(abs(amount) AS VARCHAR), '0.'), 1, 1) AS digit
            FROM business_transactions
            WHERE regexp_like(process_type, $processes) AND operator_id IS NOT NULL AND amount <> 0
        ), event_ts, INTERVAL '1 month', 'Asia/Shanghai')
        GROUP BY operator_id, window_start, window_end
    ) d
) b
