/*---
id          = "tx_channel_mismatch"
kind        = "alert"
title       = "Payments booked of a channel and day are not those of the bank's file"
title_zh    = "渠道对账不平"
severity    = "critical"
entity      = ["channel", "settlement_date"]
category    = "business"
unit        = "yuan"
standard    = "internal"
owner       = "billing"
description = """
Compares the payments of each channel and local day, less their reversals on that day, with the total of the file that
the bank or provider sent for it (step `file_step`, its `channel` and `amount`, the day in the attribute
`settlement_date`) from the end of the day to `within` later, that included. Fires if they differ by more than
`tolerance_yuan`, if no file came (told when that time has passed), or if there is a file for a day without payments. A
corrected file within that time resolves. Days are those of UTC+8, channels those that match `channels`; cash has no
file. A payment that is delivered twice counts twice, and fires. Which payment it is, is not seen: compare the file.
"""
[params]
pay_step       = "payment_received"
pay_undone     = "^payment_(reversed|refunded|cancelled)$"
file_step      = "bank_file"
channels       = "^(bank|app|web|agent)$"
within         = "2 days"
tolerance_yuan = 0.01
---*/
WITH booked AS (
    SELECT
        channel,
        window_start,
        window_end,
        CAST(window_start + INTERVAL '8 hours' AS DATE) AS settlement_date,
        count(*) FILTER (WHERE step = $pay_step) AS payments,
        coalesce(sum(CASE WHEN step = $pay_step THEN amount ELSE -abs(amount) END), 0) AS booked_yuan
    FROM TUMBLE(business_transactions, event_ts, INTERVAL '1 day', TIMESTAMP '1970-01-01T16:00:00Z')
    WHERE regexp_like(channel, $channels) AND amount IS NOT NULL
        AND (step = $pay_step OR regexp_like(step, $pay_undone))
    GROUP BY channel, window_start, window_end
),
files AS (
    SELECT channel, event_ts, TRY_CAST(attrs['settlement_date'] AS DATE) AS settlement_date, amount AS file_yuan, txn_id
    FROM business_transactions
    WHERE step = $file_step AND regexp_like(channel, $channels) AND amount IS NOT NULL
),
compared AS (
    SELECT
        coalesce(b.channel, f.channel) AS channel,
        coalesce(b.settlement_date, f.settlement_date) AS settlement_date,
        coalesce(f.event_ts, b.window_end) AS event_ts,
        coalesce(b.booked_yuan, 0) AS booked_yuan,
        f.file_yuan,
        coalesce(b.payments, 0) AS payments,
        f.channel IS NULL AS no_file,
        b.channel IS NULL AS no_payments,
        f.txn_id
    FROM booked b
    FULL JOIN files f
        ON f.channel = b.channel AND f.settlement_date = b.settlement_date
        AND f.event_ts BETWEEN b.window_end AND b.window_end + INTERVAL $within
)
SELECT
    channel,
    settlement_date,
    event_ts,
    no_file OR abs(file_yuan - booked_yuan) > $tolerance_yuan AS firing,
    CASE
        WHEN no_file THEN 'no_file'
        WHEN abs(file_yuan - booked_yuan) <= $tolerance_yuan THEN 'right'
        WHEN no_payments THEN 'no_payments'
        ELSE 'differs'
    END AS verdict,
    booked_yuan AS measured,
    file_yuan - $tolerance_yuan AS limit_low,
    file_yuan + $tolerance_yuan AS limit_high,
    'yuan' AS unit,
    booked_yuan - file_yuan AS difference_yuan,
    file_yuan,
    payments,
    txn_id
FROM compared
WHERE settlement_date IS NOT NULL
