-- Clock of a meter against that of the head end in the middle of the round trip, at most 300 s apart.
SELECT
    n,
    drift_s,
    abs(drift_s) > limit_s AS violation,
    'drift = meter - (head_end + rtt/2)' AS note
FROM (
    SELECT
        n,
        extract(epoch FROM CAST(meter_clock AS TIMESTAMP)) - extract(epoch FROM CAST(head_end AS TIMESTAMP)) - round_trip_s / 2.0 AS drift_s,
        limit_s
    FROM example
) d
