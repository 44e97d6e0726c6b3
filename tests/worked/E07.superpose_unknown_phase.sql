-- GB/T 14549-1993, annex C: one order's currents of two sources, with K_h where their angle is unknown, by the cosine rule where it is known.
SELECT
    n,
    round(sqrt(i1 * i1 + i2 * i2 + k * i1 * i2), 6) AS ih_a,
    round(sqrt(i1 * i1 + i2 * i2 + 2 * i1 * i2 * cos(radians(known_phase_deg))), 6) AS known_phase_60deg_a
FROM (
    SELECT
        n,
        i1,
        i2,
        CASE h WHEN 3 THEN 1.62 WHEN 5 THEN 1.28 WHEN 7 THEN 0.72 WHEN 11 THEN 0.18 WHEN 13 THEN 0.08 ELSE 0.00 END AS k,
        60 AS known_phase_deg
    FROM example
) i
