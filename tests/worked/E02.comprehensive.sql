-- GB/T 12325-2008, annex A, and the grid company's rules: combined qualification rate of the classes of monitoring points.
SELECT
    n,
    round(class_a_weight * "VA" + (1 - class_a_weight) * ("VB" + "VC" + "VD") / 3, 6) AS "V_pct"
FROM (SELECT *, 0.5 AS class_a_weight FROM example) v
