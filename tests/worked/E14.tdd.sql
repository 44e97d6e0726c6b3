-- IEEE 519-2022, clause 5.2: total demand distortion and order 5 of the demand current, against the row of Isc/IL.
-- Columns of the limits: Isc/IL from and below, then % of IL for orders below 11, 11-16, 17-22, 23-34, 35-50, and for TDD.
WITH limits ("row", ratio_from, ratio_below, limit_below_11_pct, limit_11_pct, limit_17_pct, limit_23_pct, limit_35_pct, limit_tdd_pct) AS (
    VALUES
        ('<20', 0, 20, 4.0, 2.0, 1.5, 0.6, 0.3, 5.0),
        ('20<50', 20, 50, 7.0, 3.5, 2.5, 1.0, 0.5, 8.0),
        ('50<100', 50, 100, 10.0, 4.5, 4.0, 1.5, 0.7, 12.0),
        ('100<1000', 100, 1000, 12.0, 5.5, 5.0, 2.0, 1.0, 15.0),
        ('>1000', 1000, NULL, 15.0, 7.0, 6.0, 2.5, 1.4, 20.0)
),
currents AS (
    SELECT
        n,
        CAST(CAST(isc_a AS DECIMAL(12, 4)) / CAST(il_a AS DECIMAL(12, 4)) AS DECIMAL(12, 6)) AS isc_il,
        CAST(100 * sqrt(ih_a_5 * ih_a_5 + ih_a_7 * ih_a_7 + ih_a_11 * ih_a_11 + ih_a_13 * ih_a_13) / il_a AS DECIMAL(12, 6)) AS tdd_pct,
        CAST(100 * ih_a_5 / il_a AS DECIMAL(12, 6)) AS i5_pct
    FROM example
)
SELECT
    c.n,
    c.isc_il,
    c.tdd_pct,
    c.i5_pct,
    l."row",
    l.limit_tdd_pct AS lim_tdd,
    l.limit_below_11_pct AS "lim_h<11",
    c.tdd_pct > l.limit_tdd_pct AS violation_tdd,
    c.i5_pct > l.limit_below_11_pct AS violation_h5
FROM currents c
LEFT JOIN limits l ON c.isc_il >= l.ratio_from AND (c.isc_il < l.ratio_below OR l.ratio_below IS NULL)
