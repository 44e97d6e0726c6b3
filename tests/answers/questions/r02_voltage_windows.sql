-- Ten-minute means of a stream beyond +7 % and -10 % of $nominal_v V.
WITH phases AS (
    SELECT
        meter_id || '/' || phase AS point,
        count(*) AS windows,
        count(*) FILTER (WHERE over) AS over,
        count(*) FILTER (WHERE under) AS under,
        count(*) FILTER (WHERE near_limit) AS near_limit
    FROM voltage_windows
    WHERE source = '$stream' AND nominal_v = $nominal_v
    GROUP BY meter_id, phase
)
SELECT
    sum(windows) AS total_windows,
    sum(over) AS total_over,
    sum(under) AS total_under,
    sum(near_limit) AS near_limit,
    map(
        array_agg(point ORDER BY point),
        array_agg(named_struct('windows', windows, 'over', over, 'under', under) ORDER BY point)
    ) AS per_meter_phase
FROM phases
