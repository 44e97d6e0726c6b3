-- z against the exponentially weighted mean and variance before the value: d = x - mean, mean' = mean + alpha d,
-- var' = (1 - alpha) (var + alpha d^2); both in closed form, as running sums of terms over (1 - alpha)^t, good for some thousand values.
WITH samples AS (
    SELECT n, init_mean, init_var, alpha, 1 - alpha AS decay, unnest(generate_series(1, array_length(x))) AS t, unnest(x) AS v
    FROM example
),
means AS (
    SELECT *, power(decay, t) * (init_mean + alpha * sum(v / power(decay, t)) OVER (PARTITION BY n ORDER BY t)) AS mean
    FROM samples
),
differences AS (
    SELECT *, v - coalesce(lag(mean) OVER (PARTITION BY n ORDER BY t), init_mean) AS d
    FROM means
),
variances AS (
    SELECT *, power(decay, t) * (init_var + alpha * sum(decay * d * d / power(decay, t)) OVER (PARTITION BY n ORDER BY t)) AS var
    FROM differences
),
scores AS (
    SELECT *, coalesce(d / sqrt(nullif(coalesce(lag(var) OVER (PARTITION BY n ORDER BY t), init_var), 0)), 0) AS z
    FROM variances
)
SELECT
    n,
    array_agg(round(z, 6) ORDER BY t) AS z_before_update,
    round(last_value(mean ORDER BY t), 6) AS final_mean,
    round(last_value(var ORDER BY t), 6) AS final_var
FROM scores
GROUP BY n
