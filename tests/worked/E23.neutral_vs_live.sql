-- Theft: a current in the neutral that differs from that of the live wire, by more than 20 % of the larger one once there is a load.
SELECT
    n,
    CAST(difference_a * 100 / nullif(larger_a, 0) AS DECIMAL(12, 6)) AS diff_pct,
    larger_a >= min_a AND difference_a * 100 > tol_pct * larger_a AS alert
FROM (
    SELECT
        n,
        CAST(abs(abs(i_live) - abs(i_neutral)) AS DECIMAL(12, 6)) AS difference_a,
        CAST(greatest(abs(i_live), abs(i_neutral)) AS DECIMAL(12, 6)) AS larger_a,
        CAST(min_i AS DECIMAL(12, 6)) AS min_a,
        tol_pct
    FROM example
) c
