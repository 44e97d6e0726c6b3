-- How uneven the currents of LV-HEAD are, by quarters of an hour.
WITH windows AS (
    SELECT
        window_start,
        round(CAST(100 * (highest - lowest) AS DOUBLE) / CAST(highest AS DOUBLE), 9) AS unbalance_pct
    FROM (
        SELECT
            window_start,
            greatest(i_a_mean_a, i_b_mean_a, i_c_mean_a) AS highest,
            least(i_a_mean_a, i_b_mean_a, i_c_mean_a) AS lowest
        FROM quarter_hours
        WHERE meter_id = 'LV-HEAD' AND i_a_mean_a IS NOT NULL AND i_b_mean_a IS NOT NULL AND i_c_mean_a IS NOT NULL
    )
    WHERE highest > 0
)
SELECT
    max(unbalance_pct) AS max_pct,
    CAST(extract(epoch FROM first_value(window_start ORDER BY unbalance_pct DESC, window_start)) AS BIGINT) AS window_start_epoch,
    count(*) FILTER (WHERE unbalance_pct > 15) AS over_15pct,
    count(*) AS windows
FROM windows
