-- IEC 61000-4-30, clause 5.11: rapid voltage change, difference of the steady states and largest deviation, in % of nominal.
SELECT
    n,
    round(100 * abs(u_ss_before - u_ss_after) / un, 6) AS "dUss_pct",
    round(100 * max_dev_from_before_v / un, 6) AS "dUmax_pct"
FROM example
