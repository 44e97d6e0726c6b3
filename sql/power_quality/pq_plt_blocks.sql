/*---
id          = "pq_plt_blocks"
kind        = "view"
title       = "Long-term flicker of blocks of two hours, with its limits"
title_zh    = "2小时长时闪变"
standard    = "IEC 61000-4-30:2015"
clause      = "5.3"
category    = "pq"
owner       = "power-quality"
description = """
Each even UTC block of two hours: the cube root of the mean of the cubes of its twelve short-term values. A short-term value is
stamped at the end of its ten minutes; a stamp up to 5 minutes off still finds its place, and of several in one place the last
counts. Without all twelve there is no value: part of a block is not summed. A block is left out if any of its values is.
One row for each limit `plt` in `pq_limits` that holds for the voltage of the point (schemes `GB` and `EN`), as it stood at the time of
the readings: a block in which a limit changes is not whole for either.
"""
---*/
SELECT
    meter_id,
    window_start,
    window_end,
    limit_id,
    scheme,
    limit_high,
    unit,
    share_pct,
    min_coverage_pct,
    interval_s,
    standard,
    clause,
    count(pst) AS n_pst,
    count(*) FILTER (WHERE flagged) AS n_flagged_pst,
    bool_or(flagged) AS flagged,
    bool_or(left_out) AS left_out,
    max(flag_policy) AS flag_policy,
    min(basis_rank) AS basis_rank,
    max(pst) AS highest_pst,
    TRY_CAST(plt(CAST(pst AS DOUBLE)) AS DECIMAL(18, 6)) AS value
FROM TUMBLE(
    (
        SELECT
            meter_id,
            window_start AS at,
            limit_id, scheme, limit_high, unit, share_pct, min_coverage_pct, interval_s, standard, clause,
            bool_or(flagged) AS flagged,
            bool_or(left_out) AS left_out,
            max(flag_policy) AS flag_policy,
            min(basis_rank) AS basis_rank,
            last_value(pst ORDER BY at) AS pst
        FROM TUMBLE(
            (
                -- The middle of the interval that a stamp at its end closes.
                SELECT
                    r.meter_id, r.ts - INTERVAL '5 minutes' AS at, r.flagged, r.left_out, r.flag_policy, r.basis_rank, r.pst,
                    l.limit_id, l.scheme, l.limit_high, l.unit, l.share_pct, l.min_coverage_pct, l.interval_s, l.standard, l.clause
                FROM pq_readings r
                JOIN pq_limits l ON l.quantity = 'plt' AND r.line_v > l.line_v_above AND r.line_v <= l.line_v_upto
                WHERE r.pst >= 0
            ),
            at,
            INTERVAL '10 minutes'
        )
        GROUP BY meter_id, window_start, window_end, limit_id, scheme, limit_high, unit, share_pct, min_coverage_pct, interval_s, standard, clause
    ),
    at,
    INTERVAL '2 hours'
)
GROUP BY meter_id, window_start, window_end, limit_id, scheme, limit_high, unit, share_pct, min_coverage_pct, interval_s, standard, clause
