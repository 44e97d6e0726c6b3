-- Devices: days until a disk is full to its target, by the line through its daily values.
SELECT
    n,
    round(slope, 6) AS slope_pct_day,
    round(CASE WHEN slope > 0 THEN (target - latest_pct) / slope END, 6) AS days_left
FROM (
    SELECT n, regr_slope(disk_pct, day) AS slope, last_value(disk_pct ORDER BY day) AS latest_pct, min(target) AS target
    FROM (SELECT n, target, unnest(disk_pct_daily) AS disk_pct, unnest(range(0, array_length(disk_pct_daily))) AS day FROM example) d
    GROUP BY n
) f
