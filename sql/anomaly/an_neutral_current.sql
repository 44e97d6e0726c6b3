/*---
id            = "an_neutral_current"
kind          = "alert"
title         = "Current comes back past the meter"
title_zh      = "零火线电流不一致"
severity      = "warning"
entity        = "meter_id"
category      = "anomaly"
unit          = "%"
standard      = "internal"
owner         = "analytics"
resolve_after = 4
description   = """
Of a meter with one phase compares the current of the phase with that of the neutral, each the mean over `within` up to the
reading: they are the same current, so a difference of more than `max_diff_pct` of the larger means that a part flows past
one of the measuring elements, by a second feed, a bypass, or an earth in place of the neutral. Judged if the larger is at
least `min_a`, else the verdict is `too_small`; without one of the two it is `insufficient_data`. Resolves after four
readings within. `basis` is that of the reading; instants are indicative. Kept are the readings of `within`. Not seen:
meters with several phases, whose neutral carries the unbalance, and a bypass of both elements. A fault of the wiring
looks alike.
"""
[params]
within       = "10 minutes"
max_diff_pct = 20.0
min_a        = 0.5
---*/
SELECT
    meter_id,
    ts,
    CASE WHEN larger_a >= $min_a THEN diff_a * 100 > larger_a * $max_diff_pct END AS firing,
    CASE
        WHEN diff_a IS NULL THEN 'insufficient_data'
        WHEN larger_a < $min_a THEN 'too_small'
        WHEN diff_a * 100 > larger_a * $max_diff_pct THEN 'differs'
        ELSE 'agrees'
    END AS verdict,
    CASE WHEN larger_a >= $min_a THEN CAST(diff_a * 100 / nullif(larger_a, 0) AS DECIMAL(12, 6)) END AS measured,
    $max_diff_pct AS limit_high,
    '%' AS unit,
    live_a,
    neutral_a,
    basis,
    readings,
    $within AS within
FROM (
    SELECT
        *,
        abs(live_a - neutral_a) AS diff_a,
        CASE WHEN live_a IS NOT NULL AND neutral_a IS NOT NULL THEN greatest(live_a, neutral_a) END AS larger_a
    FROM (
        SELECT
            meter_id,
            ts,
            coalesce(basis, 'unknown') AS basis,
            CAST(avg(live_a) OVER w AS DECIMAL(18, 9)) AS live_a,
            CAST(avg(neutral_a) OVER w AS DECIMAL(18, 9)) AS neutral_a,
            count(*) OVER w AS readings
        FROM (
            SELECT
                r.meter_id,
                r.ts,
                r.agg_basis AS basis,
                abs(TRY_CAST(
                    CASE m.phases WHEN 'b' THEN r.i_b_a WHEN 'c' THEN r.i_c_a ELSE r.i_a_a END AS DECIMAL(12, 6)
                )) AS live_a,
                abs(TRY_CAST(r.i_n_a AS DECIMAL(12, 6))) AS neutral_a
            FROM meter_readings r
            JOIN meters m ON m.meter_id = r.meter_id
            WHERE m.phases IN ('a', 'b', 'c')
        ) c
        WINDOW w AS (PARTITION BY meter_id ORDER BY ts RANGE INTERVAL $within PRECEDING)
    ) w
) d
