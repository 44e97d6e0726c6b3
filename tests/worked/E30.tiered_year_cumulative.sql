-- Bill under tiers of a year: what the year has used before decides in which tier the energy of this bill begins.
SELECT
    n,
    CAST(tiered_amount(
        kwh_before,
        kwh_this,
        [tiers_year[1][1], tiers_year[2][1]],
        [tiers_year[1][2], tiers_year[2][2], tiers_year[3][2]]
    ) AS VARCHAR) AS amount
FROM example
