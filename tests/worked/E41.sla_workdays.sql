-- Service promise in working days after acceptance, without weekends and holidays.
SELECT
    n,
    CAST(due AS VARCHAR) AS due,
    DATE '2026-10-13' > due AS "overdue_if_done_2026-10-13"
FROM (
    SELECT
        n,
        add_working_days(
            CAST(accepted AS DATE),
            limit_workdays,
            generate_series(
                CAST(split_part(holidays, '..', 1) AS DATE),
                CAST(left(holidays, 8) || split_part(holidays, '..', 2) AS DATE),
                INTERVAL '1 day'
            )
        ) AS due
    FROM example
) d
