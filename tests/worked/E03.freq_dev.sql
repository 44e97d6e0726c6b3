-- GB/T 15945-2008, clause 3: deviation from 50 Hz; limit 0.2 Hz, 0.5 Hz in small systems, a value on the limit is inside.
SELECT
    n,
    dev_hz,
    abs(dev_hz) > limit_hz AS violation
FROM (
    SELECT
        n,
        CAST(f_hz AS DECIMAL(9, 6)) - 50 AS dev_hz,
        CAST(lim_hz AS DECIMAL(9, 6)) AS limit_hz
    FROM example
) f
