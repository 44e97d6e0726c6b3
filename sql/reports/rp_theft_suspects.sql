/*---
id          = "rp_theft_suspects"
title       = "Whom should the inspectors visit first, on what evidence, and how much energy and money may be missing?"
title_zh    = "窃电稽查优先名单、证据与估算电量电费"
description = """
For the inspectors of electricity use. The lists of an_theft_top, newest week first, the first 20 of each. `signals` are the signs that
were seen in the four weeks of the list, `alerts` the rules that told of the meter in these weeks. `usual_kwh` is the median week of the
eight before them, `weeks_known` how many of the four weeks have an energy (an_usage_weeks), `used_kwh` their sum;
`missing_kwh` is what a usual course would have been less that, NULL without at least two weeks before, and 0 where nothing is
missing. `price` is the mean of what the bills of the meter up to the end of the list say, `missing_yuan` the product: an estimate for the
order of visits, no claim. It does not know of absence, solar cells or a change of business, and of a theft from the first day
on it has no usual week. A list that ends after the newest reading is not complete; `weeks_known` shows it.
"""
owner       = "analytics"
duckdb      = true
---*/
WITH lists AS (
    SELECT window_start, window_end, place, meter_id, score, signals
    FROM an_theft_top
    WHERE place <= 20
),
before_weeks AS (
    SELECT l.window_start, l.meter_id, count(u.kwh) AS weeks_before, CAST(median(u.kwh) AS DECIMAL(18, 4)) AS usual_kwh
    FROM lists l
    JOIN an_usage_weeks u ON u.meter_id = l.meter_id AND u.kwh IS NOT NULL
        AND u.window_start >= l.window_start - INTERVAL '56 days' AND u.window_start < l.window_start
    GROUP BY l.window_start, l.meter_id
),
list_weeks AS (
    SELECT l.window_start, l.meter_id, count(u.kwh) AS weeks_known, CAST(sum(u.kwh) AS DECIMAL(18, 4)) AS used_kwh
    FROM lists l
    JOIN an_usage_weeks u ON u.meter_id = l.meter_id AND u.window_start >= l.window_start AND u.window_end <= l.window_end
    GROUP BY l.window_start, l.meter_id
),
told AS (
    SELECT window_start, meter_id, string_agg(rule_id, ' ' ORDER BY rule_id) AS alerts
    FROM (
        SELECT DISTINCT l.window_start, l.meter_id, a.rule_id
        FROM lists l
        JOIN alerts a ON split_part(a.entity_id, '|', 1) = l.meter_id AND a.status = 'open'
            AND a.event_ts >= l.window_start AND a.event_ts <= l.window_end
    ) d
    GROUP BY window_start, meter_id
),
prices AS (
    SELECT
        l.window_start,
        l.meter_id,
        CAST(CAST(sum(b.amount) AS DECIMAL(24, 6)) / nullif(sum(b.kwh), 0) AS DECIMAL(12, 4)) AS price
    FROM lists l
    JOIN business_transactions b ON b.meter_id = l.meter_id AND b.process_type = 'billing' AND b.step = 'bill_issued'
        AND b.kwh > 0 AND b.amount > 0 AND b.event_ts <= l.window_end
    GROUP BY l.window_start, l.meter_id
),
estimates AS (
    SELECT
        l.*,
        t.alerts,
        b.weeks_before,
        b.usual_kwh,
        w.weeks_known,
        w.used_kwh,
        CASE
            WHEN b.weeks_before >= 2 AND w.weeks_known > 0 THEN
                CAST(
                    CASE WHEN b.usual_kwh * w.weeks_known > w.used_kwh THEN b.usual_kwh * w.weeks_known - w.used_kwh ELSE 0 END AS DECIMAL(18, 2)
                )
        END AS missing_kwh,
        p.price
    FROM lists l
    LEFT JOIN before_weeks b ON b.window_start = l.window_start AND b.meter_id = l.meter_id
    LEFT JOIN list_weeks w ON w.window_start = l.window_start AND w.meter_id = l.meter_id
    LEFT JOIN told t ON t.window_start = l.window_start AND t.meter_id = l.meter_id
    LEFT JOIN prices p ON p.window_start = l.window_start AND p.meter_id = l.meter_id
)
SELECT
    CAST(e.window_end AT TIME ZONE 'Asia/Shanghai' AS DATE) AS list_until,
    e.place,
    e.meter_id,
    m.customer_id,
    m.transformer,
    m.feeder,
    e.score,
    e.signals,
    e.alerts,
    e.weeks_before,
    e.usual_kwh,
    e.weeks_known,
    e.used_kwh,
    e.missing_kwh,
    e.price,
    CAST(e.missing_kwh * e.price AS DECIMAL(18, 2)) AS missing_yuan
FROM estimates e
LEFT JOIN meters m ON m.meter_id = e.meter_id
    AND (m.valid_from IS NULL OR m.valid_from < e.window_end) AND (m.valid_to IS NULL OR e.window_end <= m.valid_to)
ORDER BY list_until DESC, e.place
