-- Load rate of a day, mean over maximum, and the difference of peak and valley over the peak.
SELECT
    n,
    round(avg(kw), 6) AS avg_kw,
    max(kw) AS max_kw,
    round(100 * avg(kw) / nullif(max(kw), 0), 6) AS load_rate_pct,
    round(100 * (max(kw) - min(kw)) / nullif(max(kw), 0), 6) AS peak_valley_diff_pct
FROM (SELECT n, unnest(hourly_kw) AS kw FROM example) h
GROUP BY n
