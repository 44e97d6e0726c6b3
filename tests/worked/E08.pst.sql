-- IEC 61000-4-15: short-term flicker of ten minutes from the (smoothed) levels exceeded 0.1, 1, 3, 10 and 50 % of the time.
SELECT
    n,
    round(sqrt(0.0314 * p01 + 0.0525 * p1s + 0.0657 * p3s + 0.28 * p10s + 0.08 * p50s), 6) AS pst
FROM example
