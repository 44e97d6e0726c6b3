-- GB/T 15543-2008, annex A: negative-sequence unbalance from three line voltages, without angles.
SELECT
    n,
    round((power(uab, 4) + power(ubc, 4) + power(uca, 4)) / power(uab * uab + ubc * ubc + uca * uca, 2), 6) AS "L",
    round(voltage_unbalance_line_pct(uab, ubc, uca), 6) AS eps2_pct
FROM (
    SELECT n, CAST(uab AS DOUBLE) AS uab, CAST(ubc AS DOUBLE) AS ubc, CAST(uca AS DOUBLE) AS uca
    FROM example
) u
