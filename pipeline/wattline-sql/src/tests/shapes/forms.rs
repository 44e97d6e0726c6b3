//! Rules that say in one way what could be said in another: all forms that people write run.

use super::super::fleet::rule;
use super::{PATIENT, TABLE};
use crate::RuleFile;

pub(super) fn forms() -> Vec<RuleFile> {
    [exists_in_larger_conditions(), bounds(), bins(), numbers()].into_iter().flatten().collect()
}

fn of(id: &str, sql: &str) -> RuleFile {
    rule(id, TABLE, sql)
}

fn exists_in_larger_conditions() -> Vec<RuleFile> {
    let counted = "(SELECT meter_id, window_start, window_end, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY meter_id, window_start, window_end)";
    vec![
        of(
            "exists_or",
            "SELECT ts, meter_id, seq_no FROM meter_readings a WHERE seq_no > 4 OR EXISTS (SELECT 1 FROM other_readings b\n\
             WHERE b.meter_id = a.meter_id AND b.ts BETWEEN a.ts - INTERVAL '20 seconds' AND a.ts + INTERVAL '20 seconds' AND b.u_a_v > a.u_a_v)",
        ),
        of(
            "exists_or_not",
            "SELECT ts, meter_id, seq_no FROM meter_readings a WHERE seq_no < 2 OR NOT EXISTS (SELECT 1 FROM other_readings b\n\
             WHERE b.meter_id = a.meter_id AND b.ts > a.ts AND b.ts <= a.ts + INTERVAL '30 seconds')",
        ),
        of(
            "exists_or_in_reference",
            "SELECT ts, meter_id FROM meter_readings WHERE seq_no = 3 OR meter_id IN (SELECT meter_id FROM meters WHERE feeder = 'F2')",
        ),
        of(
            "exists_of_versions",
            "SELECT ts, meter_id, seq_no FROM meter_readings r WHERE EXISTS (SELECT 1 FROM installations i WHERE i.meter_id = r.meter_id AND i.ct_ratio > 10)",
        ),
        of(
            "exists_of_no_version",
            "SELECT ts, meter_id, seq_no FROM meter_readings r WHERE NOT EXISTS (SELECT 1 FROM installations WHERE installations.meter_id = r.meter_id)",
        ),
        of(
            "exists_of_versions_or",
            "SELECT ts, meter_id, seq_no FROM meter_readings r WHERE seq_no = 3 OR meter_id IN (SELECT meter_id FROM installations)",
        ),
        of(
            "exists_of_versions_of_windows",
            &format!(
                "SELECT meter_id, window_start, window_end, n FROM {counted} c WHERE NOT EXISTS (SELECT 1 FROM installations i WHERE i.meter_id = c.meter_id)"
            ),
        ),
        of(
            "exists_or_in_what_has_no_name",
            "SELECT ts, meter_id FROM meter_readings WHERE seq_no = 3 OR meter_id IN (SELECT least(f, 'M2') FROM (SELECT max(meter_id) AS f FROM meters GROUP BY feeder))\n\
             OR u_a_v IN (SELECT un_v FROM meters UNION ALL SELECT un_v + 1 FROM meters)",
        ),
        of(
            "exists_of_windows",
            &format!(
                "SELECT a.meter_id, a.window_start, a.n FROM {counted} a WHERE EXISTS (SELECT 1 FROM {counted} b WHERE b.window_start = a.window_start AND b.meter_id < a.meter_id AND b.n > a.n)"
            ),
        ),
        of(
            "exists_of_windows_or",
            &format!(
                "SELECT a.meter_id, a.window_start, a.n FROM {counted} a WHERE a.n > 3 OR NOT EXISTS (SELECT 1 FROM {counted} b WHERE b.window_start = a.window_start AND b.n > a.n)"
            ),
        ),
    ]
}

fn bounds() -> Vec<RuleFile> {
    vec![
        of(
            "bound_by_difference",
            "SELECT a.ts, a.meter_id, b.seq_no AS other FROM meter_readings a JOIN other_readings b\n\
             ON b.meter_id = a.meter_id AND b.ts - a.ts >= INTERVAL '5 seconds' AND INTERVAL '40 seconds' > b.ts - a.ts",
        ),
        of(
            "bound_by_bin",
            "SELECT a.ts, a.meter_id, b.seq_no AS other FROM meter_readings a LEFT JOIN other_readings b ON b.meter_id = a.meter_id\n\
             AND date_bin(INTERVAL '20 seconds', b.ts) = date_bin(INTERVAL '20 seconds', a.ts - INTERVAL '10 seconds')",
        ),
        of(
            "bound_by_computed_interval",
            "SELECT a.ts, a.meter_id, b.seq_no AS other FROM meter_readings a JOIN other_readings b ON b.meter_id = a.meter_id\n\
             AND b.ts - a.ts >= -(INTERVAL '10 seconds') AND b.ts <= a.ts + 2 * INTERVAL '10 seconds' - INTERVAL '1 second'",
        ),
        of(
            "bound_by_window",
            "SELECT a.ts, a.meter_id, a.seq_no, w.n FROM meter_readings a LEFT JOIN (\n\
               SELECT meter_id, window_start, window_end, count(*) AS n FROM HOP(other_readings, ts, INTERVAL '1 minute', INTERVAL '2 minutes') GROUP BY meter_id, window_start, window_end) w\n\
             ON w.meter_id = a.meter_id AND a.ts >= w.window_start AND a.ts < w.window_end",
        ),
        of(
            "full_join_of_which_one_side_is_there",
            "SELECT a.ts, a.meter_id, b.seq_no AS other FROM meter_readings a FULL JOIN other_readings b\n\
             ON b.meter_id = a.meter_id AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '20 seconds' WHERE a.seq_no > 2",
        ),
        of(
            "durations",
            "SELECT ts, meter_id, seq_no FROM (SELECT *, ts - lag(ts) OVER (PARTITION BY meter_id ORDER BY ts) AS gap FROM meter_readings)\n\
             WHERE gap > INTERVAL '40 seconds' AND gap < INTERVAL '1 day' OR gap BETWEEN INTERVAL '1 second' AND INTERVAL '10 seconds'",
        ),
    ]
}

fn bins() -> Vec<RuleFile> {
    let mut rules = vec![of(
        "bin_moved_back",
        "SELECT window_start - INTERVAL '7 minutes' AS at, meter_id, count(*) AS n FROM HOP(meter_readings, ts, INTERVAL '1 minute', INTERVAL '3 minutes')\n\
         GROUP BY window_start - INTERVAL '7 minutes', meter_id",
    )];
    for part in ["minute", "week", "month", "year"] {
        let header = if part == "minute" { TABLE } else { PATIENT };
        let sql = format!(
            "SELECT date_trunc('{part}', ts) AS at, meter_id, count(*) AS n FROM meter_readings GROUP BY date_trunc('{part}', ts), meter_id"
        );
        rules.push(rule(&format!("bin_of_{part}"), header, &sql));
    }
    rules
}

/// Floats beside decimals, one of them too large for any decimal.
fn numbers() -> Vec<RuleFile> {
    let values = "(SELECT ts, meter_id, seq_no, CASE WHEN seq_no = 3 THEN 1e25 WHEN seq_no = 4 THEN -0.0 WHEN seq_no = 5 THEN 0.0 ELSE u_a_v END AS v, energy_imp_kwh AS d FROM meter_readings)";
    vec![
        of(
            "numbers_chosen",
            &format!(
                "SELECT ts, meter_id, coalesce(v, 1.5) AS a, greatest(v, d, 0.5) AS b, nullif(v, 0.0) AS c, CASE v WHEN 1.0 THEN 'one' WHEN d THEN 'd' END AS e,\n\
                 CASE WHEN seq_no > 2 THEN d ELSE v END AS f, d BETWEEN 0.1 AND v AS g, d IN (v, 0.1) AS h, round(d / 7, 3) > 9 AS i, [v, 0.5] AS l, seq_no + 1e25 AS big FROM {values}"
            ),
        ),
        of(
            "numbers_joined",
            &format!(
                "SELECT ts, v, n FROM (SELECT ts, v FROM {values}) a JOIN (SELECT CAST(seq_no AS DECIMAL(6, 2)) * 0.5 AS v, ts, seq_no AS n FROM meter_readings) b USING (ts, v)\n\
                 UNION ALL SELECT ts, v, seq_no FROM {values} WHERE v IN (SELECT CAST(un_v AS DECIMAL(6, 2)) FROM meters) OR d IN (SELECT un_v / 10 FROM meters)"
            ),
        ),
        of(
            "numbers_united",
            &format!(
                "SELECT ts, v AS x, coalesce(v, d) AS y FROM {values} UNION ALL SELECT ts, d, greatest(v, 1.5) FROM {values}"
            ),
        ),
        of(
            "zeros_are_one",
            &format!(
                "SELECT ts, meter_id, row_number() OVER (PARTITION BY v ORDER BY ts, meter_id, seq_no) AS nth FROM {values} WHERE seq_no > 3"
            ),
        ),
        of(
            "zeros_in_sessions",
            &format!(
                "SELECT v + 0.0 AS v, window_end, count(*) AS n FROM SESSION((SELECT ts, v FROM {values} WHERE seq_no > 3), ts, INTERVAL '20 seconds', v) GROUP BY v + 0.0, window_start, window_end"
            ),
        ),
        of(
            "a_window_named_twice",
            "SELECT date_trunc('minute', ts) AS t, date_trunc('minute', ts) AS h, count(*) AS c FROM meter_readings GROUP BY 1, 2",
        ),
        of(
            "a_key_named_twice",
            "SELECT meter_id AS a, meter_id AS b, window_start, count(*) AS c FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY 1, 2, 3, window_end, window_start",
        ),
    ]
}
