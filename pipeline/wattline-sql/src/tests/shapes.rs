//! Rules of every shape that runs on a stream, for the tests that compare streaming with batch.

use super::fleet::rule;
use crate::RuleFile;

mod forms;
mod order;
mod pairs;

pub(super) const TABLE: &str = "kind = \"table\"";
pub(super) const PATIENT: &str = "kind = \"table\"\ndelay = \"1 day\"";
pub(super) const ALERT: &str = "kind = \"alert\"\nentity = \"meter_id\"";

/// A rule of every shape that runs on a stream.
pub(super) fn shapes() -> Vec<RuleFile> {
    let shapes = [
        rows(),
        windows(),
        windows_of_windows(),
        over_clauses(),
        stages_of_stages(),
        unions_and_distinct(),
        other_windows(),
        windows_grouped_again(),
        hops_over_many_panes(),
        sessions_and_lists(),
        stream_joins(),
        absences(),
        other_aggregates(),
        held_back(),
        patterns(),
        domain_functions(),
    ];
    shapes.into_iter().flatten().collect()
}

/// Rules of shapes that hang on an order, on stages that wait for each other, and on types that meet.
pub(super) fn more_shapes() -> Vec<RuleFile> {
    let shapes = [
        forms::forms(),
        order::ties(),
        order::ties_of_kin(),
        order::ties_of_peers(),
        order::moving_frames(),
        order::running(),
        order::held_by_stages(),
        pairs::pairs(),
    ];
    shapes.into_iter().flatten().collect()
}

fn rows() -> Vec<RuleFile> {
    vec![
        rule("filter", TABLE, "SELECT meter_id, ts, u_a_v * 2 AS twice FROM meter_readings WHERE u_a_v > 215.5"),
        rule("everything", TABLE, "SELECT * FROM meter_readings"),
        rule(
            "subquery",
            TABLE,
            "SELECT d.ts, d.dev FROM (SELECT ts, u_a_v - 220 AS dev FROM meter_readings) d WHERE d.dev > 0",
        ),
        rule(
            "join_inner",
            TABLE,
            "SELECT r.meter_id, r.ts, m.feeder, 100 * (r.u_a_v - m.un_v) / m.un_v AS dev_pct\n\
             FROM meter_readings r JOIN meters m ON r.meter_id = m.meter_id WHERE m.feeder <> 'F9'",
        ),
        rule(
            "join_left",
            TABLE,
            "SELECT r.meter_id, r.ts, m.feeder FROM meter_readings r\n\
             LEFT JOIN meters m ON m.meter_id = r.meter_id AND m.un_v > r.u_a_v",
        ),
        rule(
            "join_right",
            TABLE,
            "SELECT r.meter_id, r.ts, m.feeder FROM meters m RIGHT JOIN meter_readings r USING (meter_id)",
        ),
        rule(
            "join_comma",
            TABLE,
            "SELECT r.ts, m.un_v FROM meter_readings r, meters m WHERE r.meter_id = m.meter_id AND r.u_a_v > m.un_v",
        ),
        rule(
            "join_all",
            TABLE,
            "SELECT r.ts, r.seq_no, m.feeder FROM meter_readings r JOIN meters m ON r.u_a_v > m.un_v + 10",
        ),
        rule(
            "versioned",
            TABLE,
            "SELECT r.meter_id, r.ts, i.ct_ratio, r.energy_imp_kwh * i.ct_ratio AS kwh\n\
             FROM meter_readings r LEFT JOIN installations i ON i.meter_id = r.meter_id",
        ),
        rule(
            "known_only",
            TABLE,
            "SELECT ts, meter_id FROM meter_readings r WHERE EXISTS (SELECT 1 FROM meters m WHERE m.meter_id = r.meter_id AND m.un_v IS NOT NULL)",
        ),
        rule(
            "unknown_only",
            TABLE,
            "SELECT ts, meter_id FROM meter_readings r WHERE NOT EXISTS (SELECT 1 FROM meters m WHERE m.meter_id = r.meter_id)",
        ),
        rule(
            "condition",
            ALERT,
            "SELECT meter_id, ts, u_a_v AS measured, coalesce(u_a_v > 235.4, false) AS firing FROM meter_readings",
        ),
    ]
}

fn windows() -> Vec<RuleFile> {
    vec![
        rule(
            "window_many",
            TABLE,
            "SELECT meter_id, window_start, window_end, count(*) AS n, count(u_a_v) AS n_v, sum(energy_imp_kwh) AS kwh,\n\
             min(u_a_v) AS lo, max(u_a_v) AS hi, avg(u_a_v) AS mean, rms_mean(u_a_v) AS rms,\n\
             count(*) FILTER (WHERE u_a_v > $limit) AS high, sum(CASE WHEN u_a_v < 210 THEN 1 ELSE 0 END) AS low,\n\
             count(DISTINCT seq_no) AS kinds, stddev(u_a_v) AS spread, median(seq_no) AS middle\n\
             FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') r\n\
             GROUP BY meter_id, window_start, window_end HAVING count(*) > 1"
                .replace("$limit", "225.5")
                .as_str(),
        ),
        rule("window_total", TABLE, "SELECT window_end, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '2 minutes') GROUP BY window_end"),
        rule(
            "window_bin",
            TABLE,
            "SELECT date_bin(INTERVAL '90 seconds', ts) AS start, seq_no, max(ts) AS newest FROM meter_readings GROUP BY 1, seq_no",
        ),
        rule(
            "window_first",
            TABLE,
            "SELECT meter_id, window_start, first_value(seq_no ORDER BY ts) AS first, last_value(u_a_v ORDER BY ts) AS last\n\
             FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY meter_id, window_start",
        ),
        rule(
            "window_join_before",
            TABLE,
            "SELECT m.feeder, window_start, window_end, sum(r.energy_imp_kwh * i.ct_ratio) AS kwh\n\
             FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') r\n\
             JOIN meters m ON m.meter_id = r.meter_id JOIN installations i ON i.meter_id = r.meter_id\n\
             GROUP BY m.feeder, window_start, window_end",
        ),
        rule(
            "window_join_after",
            TABLE,
            "SELECT w.meter_id, w.window_end, w.n, i.ct_ratio FROM (\n\
               SELECT meter_id, window_start, window_end, count(*) AS n\n\
               FROM TUMBLE(meter_readings, ts, INTERVAL '5 minutes') GROUP BY meter_id, window_start, window_end) w\n\
             LEFT JOIN installations i ON i.meter_id = w.meter_id WHERE w.n > 0",
        ),
        rule(
            "window_cte",
            "kind = \"alert\"\nentity = \"meter_id\"\nparams = { limit = 1.5, window = \"1 minute\" }\ndelay = \"2 minutes\"",
            "WITH good AS (SELECT *, u_a_v - 220 AS dev FROM meter_readings WHERE u_a_v IS NOT NULL)\n\
             SELECT meter_id, window_start, window_end, avg(dev) AS measured, round(avg(dev), 6) > $limit AS firing\n\
             FROM TUMBLE(good, ts, INTERVAL $window) GROUP BY meter_id, window_start, window_end",
        ),
        rule("view_of_good", "kind = \"view\"\ndelay = \"10 seconds\"", "SELECT *, u_a_v / 220 AS ratio FROM meter_readings WHERE u_a_v > 0"),
        rule(
            "window_over_view",
            TABLE,
            "SELECT window_start, count(*) AS n, max(ratio) AS top FROM TUMBLE(view_of_good, ts, INTERVAL '1 minute') GROUP BY window_start",
        ),
        rule("reads_window", TABLE, "SELECT window_end, n * 2 AS twice FROM window_total WHERE n > 3"),
    ]
}

fn windows_of_windows() -> Vec<RuleFile> {
    vec![
        rule(
            "window_of_windows",
            TABLE,
            "SELECT meter_id, window_start, window_end, max(kwh) AS highest, count(*) AS minutes FROM TUMBLE(\n\
               (SELECT meter_id, window_start AS minute, sum(energy_imp_kwh) AS kwh\n\
                FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY meter_id, window_start),\n\
               minute, INTERVAL '5 minutes') GROUP BY meter_id, window_start, window_end",
        ),
        rule(
            "window_over_rule",
            TABLE,
            "SELECT date_bin(INTERVAL '7 minutes', window_end) AS start, sum(n) AS n FROM window_total GROUP BY 1",
        ),
        rule(
            "both_windows",
            TABLE,
            "SELECT window_start, window_end, minute, count(*) AS n FROM TUMBLE(\n\
               (SELECT *, date_bin(INTERVAL '1 minute', ts) AS minute FROM meter_readings), ts, INTERVAL '4 minutes')\n\
             GROUP BY window_start, window_end, minute",
        ),
    ]
}

fn over_clauses() -> Vec<RuleFile> {
    let over = |id: &str, functions: &str| {
        rule(id, TABLE, &format!("SELECT meter_id, ts, seq_no, u_a_v, {functions} FROM meter_readings"))
    };
    vec![
        rule(
            "over_lag",
            TABLE,
            "SELECT meter_id, ts, lag(seq_no) OVER w AS before, lag(u_a_v, 3, 0.0) OVER w AS third\n\
             FROM meter_readings WINDOW w AS (PARTITION BY meter_id ORDER BY ts)",
        ),
        over(
            "over_rows",
            "avg(u_a_v) OVER (PARTITION BY meter_id ORDER BY ts ROWS 4 PRECEDING) AS mean, max(seq_no) OVER (PARTITION BY meter_id ORDER BY ts ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING) AS top",
        ),
        over(
            "over_range",
            "count(*) OVER (PARTITION BY meter_id ORDER BY ts RANGE BETWEEN INTERVAL '90 seconds' PRECEDING AND CURRENT ROW) AS n, min(u_a_v) OVER (PARTITION BY meter_id ORDER BY ts RANGE INTERVAL '1 minute' PRECEDING) AS low",
        ),
        over(
            "over_ahead",
            "sum(seq_no) OVER (PARTITION BY meter_id ORDER BY ts RANGE BETWEEN INTERVAL '30 seconds' PRECEDING AND INTERVAL '45 seconds' FOLLOWING) AS around",
        ),
        over(
            "over_running",
            "sum(seq_no) OVER (PARTITION BY meter_id ORDER BY ts) AS total, count(u_a_v) FILTER (WHERE seq_no > 2) OVER (PARTITION BY meter_id ORDER BY ts ROWS UNBOUNDED PRECEDING) AS n, row_number() OVER (PARTITION BY meter_id ORDER BY ts) AS nth, rank() OVER (PARTITION BY meter_id ORDER BY ts) AS place, dense_rank() OVER (PARTITION BY meter_id ORDER BY ts) AS dense",
        ),
        over(
            "over_first",
            "first_value(seq_no) OVER (PARTITION BY meter_id ORDER BY ts ROWS UNBOUNDED PRECEDING) AS first, nth_value(seq_no, 3) OVER (PARTITION BY meter_id ORDER BY ts ROWS UNBOUNDED PRECEDING) AS third, last_value(seq_no) OVER (PARTITION BY meter_id ORDER BY ts ROWS UNBOUNDED PRECEDING) AS own",
        ),
        over(
            "over_all",
            "lag(ts) OVER (ORDER BY ts) AS before, row_number() OVER (PARTITION BY seq_no ORDER BY ts) AS nth",
        ),
    ]
}

fn stages_of_stages() -> Vec<RuleFile> {
    vec![
        rule(
            "over_window_top",
            TABLE,
            "SELECT window_start, window_end, meter_id, seq_no, u_a_v, row_number() OVER (PARTITION BY window_start ORDER BY u_a_v DESC, meter_id) AS place,\n\
                lead(meter_id) OVER (PARTITION BY window_start ORDER BY u_a_v DESC, meter_id) AS next\n\
             FROM TUMBLE(meter_readings, ts, INTERVAL '2 minutes') QUALIFY place <= 3",
        ),
        rule(
            "over_of_windows",
            TABLE,
            "SELECT meter_id, window_end, n, n - lag(n) OVER (PARTITION BY meter_id ORDER BY window_end) AS change FROM (\n\
               SELECT meter_id, window_end, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY meter_id, window_end)",
        ),
        rule(
            "window_of_over",
            TABLE,
            "SELECT window_start, window_end, count(*) AS n, sum(change) AS changes FROM TUMBLE(\n\
               (SELECT ts, meter_id, seq_no - lag(seq_no) OVER (PARTITION BY meter_id ORDER BY ts) AS change FROM meter_readings),\n\
               ts, INTERVAL '3 minutes') GROUP BY window_start, window_end",
        ),
        rule(
            "first_of_each",
            TABLE,
            "SELECT * FROM (SELECT meter_id, ts, seq_no, row_number() OVER (PARTITION BY meter_id, seq_no ORDER BY ts) AS nth FROM meter_readings) WHERE nth = 1",
        ),
    ]
}

fn unions_and_distinct() -> Vec<RuleFile> {
    vec![
        rule(
            "union_all",
            TABLE,
            "SELECT ts, meter_id, u_a_v AS v FROM meter_readings WHERE seq_no = 1\n\
             UNION ALL SELECT ts, meter_id, 0 - u_a_v FROM meter_readings WHERE seq_no > 3",
        ),
        rule(
            "window_of_union",
            TABLE,
            "SELECT window_end, kind, count(*) AS n FROM TUMBLE((SELECT ts, 'a' AS kind FROM meter_readings UNION ALL\n\
               SELECT ts, 'b' AS kind FROM meter_readings WHERE seq_no = 2), ts, INTERVAL '1 minute') GROUP BY window_end, kind",
        ),
        rule(
            "distinct_window",
            TABLE,
            "SELECT DISTINCT window_start, seq_no FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute')",
        ),
        rule("distinct_time", TABLE, "SELECT DISTINCT ts, seq_no FROM meter_readings"),
        rule(
            "distinct_on",
            TABLE,
            "SELECT DISTINCT ON (meter_id, window_start) meter_id, window_start, window_end, seq_no FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') ORDER BY meter_id, window_start, ts DESC",
        ),
    ]
}

/// Windows of so many panes that parts are carried from one to the next.
fn hops_over_many_panes() -> Vec<RuleFile> {
    let small = |id: &str, table: &str, key: &str| {
        let sql = format!(
            "SELECT {key}window_start, window_end, count(*) AS n, sum(energy_imp_kwh) AS kwh, max(u_a_v) AS highest, avg(seq_no) AS mean,\n\
             last_value(seq_no ORDER BY ts) AS last FROM {table} r GROUP BY {key}window_start, window_end"
        );
        rule(id, TABLE, &sql)
    };
    vec![
        small("hop_many", "HOP(meter_readings, ts, INTERVAL '20 seconds', INTERVAL '4 minutes')", "meter_id, "),
        small("hop_many_uneven", "HOP(meter_readings, ts, INTERVAL '45 seconds', INTERVAL '5 minutes')", "meter_id, "),
        small(
            "hop_many_total",
            "HOP(meter_readings, ts, INTERVAL '15 seconds', INTERVAL '2 minutes', TIMESTAMP '1970-01-01T00:00:07Z')",
            "",
        ),
    ]
}

fn windows_grouped_again() -> Vec<RuleFile> {
    vec![
        rule(
            "hop_grouped_again",
            TABLE,
            "SELECT window_start, window_end, count(*) AS meters, sum(n) AS n FROM (SELECT meter_id, window_start, window_end, count(*) AS n\n\
             FROM HOP(meter_readings, ts, INTERVAL '1 minute', INTERVAL '3 minutes') GROUP BY meter_id, window_start, window_end)\n\
             GROUP BY window_start, window_end",
        ),
        rule(
            "hop_without_followers",
            TABLE,
            "SELECT window_start, window_end, count(*) AS n FROM HOP(meter_readings, ts, INTERVAL '1 minute', INTERVAL '3 minutes') w\n\
             WHERE NOT EXISTS (SELECT 1 FROM meter_readings b WHERE b.meter_id = w.meter_id AND b.ts > w.ts AND b.ts <= w.ts + INTERVAL '20 seconds')\n\
             GROUP BY window_start, window_end",
        ),
        rule(
            "cumulate_of_known_meters",
            TABLE,
            "SELECT window_start, window_end, meter_id, count(*) AS n FROM CUMULATE(meter_readings, ts, INTERVAL '1 minute', INTERVAL '4 minutes')\n\
             WHERE meter_id IN (SELECT meter_id FROM meters) GROUP BY window_start, window_end, meter_id",
        ),
        rule(
            "cumulate_grouped_again",
            TABLE,
            "SELECT DISTINCT window_start, window_end FROM (SELECT meter_id, window_start, window_end, count(*) AS n\n\
             FROM CUMULATE(meter_readings, ts, INTERVAL '1 minute', INTERVAL '4 minutes') GROUP BY meter_id, window_start, window_end)",
        ),
    ]
}

fn other_windows() -> Vec<RuleFile> {
    let of = |id: &str, table: &str| {
        let sql = format!(
            "SELECT meter_id, window_start, window_end, count(*) AS n, avg(energy_imp_kwh) AS mean, count(DISTINCT seq_no) AS kinds\n\
             FROM {table} r WHERE seq_no IS NOT NULL GROUP BY meter_id, window_start, window_end"
        );
        rule(id, TABLE, &sql)
    };
    vec![
        of("hop", "HOP(meter_readings, ts, INTERVAL '1 minute', INTERVAL '3 minutes')"),
        of(
            "hop_uneven",
            "HOP(meter_readings, ts, INTERVAL '70 seconds', INTERVAL '3 minutes', TIMESTAMP '1970-01-01T00:00:10Z')",
        ),
        of("hop_gaps", "HOP(meter_readings, ts, INTERVAL '3 minutes', INTERVAL '1 minute')"),
        of("cumulate", "CUMULATE(meter_readings, ts, INTERVAL '1 minute', INTERVAL '4 minutes')"),
        of("local_days", "TUMBLE(meter_readings, ts, INTERVAL '1 day', 'Asia/Shanghai')"),
        of("local_months", "TUMBLE(meter_readings, ts, INTERVAL '1 month', 'UTC')"),
        of("local_weeks", "TUMBLE(meter_readings, ts, INTERVAL '7 days', 'Europe/Berlin', DATE '1970-01-05')"),
        rule(
            "hop_end",
            TABLE,
            "SELECT window_end, max(seq_no) AS top FROM HOP(meter_readings, ts, INTERVAL '1 minute', INTERVAL '2 minutes') GROUP BY window_end",
        ),
        rule(
            "hop_rows",
            TABLE,
            "SELECT meter_id, ts, window_start, window_end FROM HOP(meter_readings, ts, INTERVAL '1 minute', INTERVAL '2 minutes') WHERE seq_no = 4",
        ),
        rule(
            "cumulate_starts",
            TABLE,
            "SELECT window_start, count(*) AS n FROM CUMULATE(meter_readings, ts, INTERVAL '1 minute', INTERVAL '4 minutes') GROUP BY window_start",
        ),
        rule(
            "hop_of_windows",
            TABLE,
            "SELECT window_start, window_end, sum(n) AS n FROM HOP((SELECT window_end AS at, n FROM window_total), at, INTERVAL '2 minutes', INTERVAL '6 minutes') GROUP BY window_start, window_end",
        ),
        rule(
            "hop_top",
            TABLE,
            "SELECT window_end, meter_id, ts, u_a_v, rank() OVER (PARTITION BY window_end ORDER BY u_a_v DESC) AS place\n\
             FROM HOP(meter_readings, ts, INTERVAL '1 minute', INTERVAL '2 minutes') QUALIFY place <= 2",
        ),
        rule(
            "window_of_top",
            TABLE,
            "SELECT window_end, count(*) AS n, sum(place) AS places FROM (\n\
               SELECT window_end, seq_no, row_number() OVER (PARTITION BY window_end ORDER BY u_a_v DESC, meter_id, ts) AS place\n\
               FROM TUMBLE(meter_readings, ts, INTERVAL '2 minutes')) WHERE place <= 4 GROUP BY window_end",
        ),
        rule(
            "window_of_ahead",
            TABLE,
            "SELECT window_end, sum(around) AS around, count(*) AS n FROM TUMBLE((SELECT ts, count(*) OVER (PARTITION BY meter_id ORDER BY ts\n\
               RANGE BETWEEN CURRENT ROW AND INTERVAL '45 seconds' FOLLOWING) AS around FROM meter_readings), ts, INTERVAL '1 minute') GROUP BY window_end",
        ),
    ]
}

fn sessions_and_lists() -> Vec<RuleFile> {
    vec![
        rule(
            "session",
            TABLE,
            "SELECT meter_id, window_start, window_end, count(*) AS n, max(u_a_v) AS top\n\
             FROM SESSION(meter_readings, ts, INTERVAL '25 seconds', meter_id) GROUP BY meter_id, window_start, window_end",
        ),
        rule(
            "session_rows",
            TABLE,
            "SELECT ts, meter_id, window_start, window_end FROM SESSION(meter_readings, ts, INTERVAL '10 seconds', meter_id, seq_no)",
        ),
        rule(
            "session_all",
            TABLE,
            "SELECT window_end, count(*) AS n FROM SESSION(meter_readings, ts, INTERVAL '2 seconds') GROUP BY window_end",
        ),
        rule(
            "session_of_windows",
            TABLE,
            "SELECT meter_id, window_start, window_end, sum(n) AS n FROM SESSION(\n\
               (SELECT meter_id, window_end AS at, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY meter_id, window_end),\n\
               at, INTERVAL '90 seconds', meter_id) GROUP BY meter_id, window_start, window_end",
        ),
        rule(
            "unnest",
            TABLE,
            "SELECT ts, meter_id, unnest(make_array(seq_no, seq_no + 10, NULL)) AS item FROM meter_readings WHERE seq_no > 2",
        ),
        rule(
            "unnest_two",
            TABLE,
            "SELECT ts, unnest(CASE WHEN seq_no > 1 THEN make_array(seq_no, 7) END) AS a, unnest(make_array('x', 'y', meter_id)) AS b FROM meter_readings WHERE seq_no < 4",
        ),
        rule(
            "unnest_null",
            TABLE,
            "SELECT ts, seq_no, unnest(CASE WHEN seq_no > 2 THEN make_array(seq_no, 0) WHEN seq_no = 1 THEN make_array() END) AS item FROM meter_readings",
        ),
        rule(
            "window_of_unnest",
            TABLE,
            "SELECT window_end, item, count(*) AS n FROM TUMBLE((SELECT ts, unnest(make_array(seq_no, 0)) AS item FROM meter_readings), ts, INTERVAL '1 minute') GROUP BY window_end, item",
        ),
    ]
}

fn stream_joins() -> Vec<RuleFile> {
    let join = |id: &str, kind: &str, bound: &str| {
        let sql = format!(
            "SELECT a.ts, a.meter_id, a.seq_no, b.ts AS b_ts, b.seq_no AS b_seq FROM meter_readings a\n\
             {kind} JOIN other_readings b ON a.meter_id = b.meter_id AND {bound}"
        );
        rule(id, TABLE, &sql)
    };
    let around = "b.ts BETWEEN a.ts - INTERVAL '3 seconds' AND a.ts + INTERVAL '7 seconds'";
    vec![
        join("interval_inner", "", around),
        join("interval_left", "LEFT", around),
        join("interval_right", "RIGHT", "a.ts >= b.ts AND a.ts < b.ts + INTERVAL '4 seconds' AND a.seq_no = b.seq_no"),
        rule(
            "interval_full",
            TABLE,
            "SELECT coalesce(a.ts, b.ts) AS at, a.ts AS a_ts, a.meter_id, a.seq_no, b.ts AS b_ts, b.seq_no AS b_seq FROM meter_readings a\n\
             FULL JOIN other_readings b ON a.meter_id = b.meter_id AND b.ts > a.ts AND b.ts - INTERVAL '5 seconds' <= a.ts AND a.u_a_v > b.u_a_v",
        ),
        join("interval_before", "LEFT", "b.ts BETWEEN a.ts - INTERVAL '20 seconds' AND a.ts - INTERVAL '10 seconds'"),
        rule(
            "followed",
            TABLE,
            "SELECT ts, meter_id, u_a_v FROM meter_readings a WHERE EXISTS (SELECT 1 FROM other_readings b\n\
             WHERE b.meter_id = a.meter_id AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '3 seconds' AND b.seq_no < 2)",
        ),
        rule(
            "self_join",
            TABLE,
            "SELECT a.ts, a.meter_id, b.ts AS next FROM meter_readings a JOIN meter_readings b\n\
             ON a.meter_id = b.meter_id AND b.ts > a.ts AND b.ts < a.ts + INTERVAL '4 seconds' AND a._partition = b._partition",
        ),
        rule(
            "join_without_key",
            TABLE,
            "SELECT a.ts, b.ts AS b_ts FROM meter_readings a, other_readings b WHERE a.seq_no = 2 AND b.seq_no = 3\n\
             AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '2 seconds'",
        ),
        rule(
            "window_join",
            TABLE,
            "SELECT a.window_start, a.window_end, a.meter_id, a.n, b.n AS others FROM\n\
               (SELECT meter_id, window_start, window_end, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY meter_id, window_start, window_end) a\n\
             LEFT JOIN (SELECT meter_id, window_start, window_end, count(*) AS n FROM TUMBLE(other_readings, ts, INTERVAL '1 minute') GROUP BY meter_id, window_start, window_end) b\n\
             ON a.meter_id = b.meter_id AND a.window_start = b.window_start",
        ),
        rule(
            "window_of_join",
            TABLE,
            "SELECT window_start, window_end, count(*) AS n, count(b_seq) AS matched FROM TUMBLE(interval_left, ts, INTERVAL '1 minute') GROUP BY window_start, window_end",
        ),
        rule(
            "window_of_full",
            TABLE,
            "SELECT date_bin(INTERVAL '1 minute', at) AS minute, count(*) AS n, count(a_ts) AS left_n FROM interval_full GROUP BY 1",
        ),
        rule(
            "over_of_join",
            TABLE,
            "SELECT ts, meter_id, b_ts, row_number() OVER (PARTITION BY meter_id ORDER BY ts, b_ts, seq_no, b_seq) AS nth FROM interval_inner WHERE seq_no > 0 AND b_seq > 0",
        ),
        rule(
            "union_of_streams",
            TABLE,
            "SELECT ts, meter_id, seq_no FROM meter_readings WHERE seq_no = 5 UNION ALL SELECT ts, meter_id, seq_no FROM other_readings WHERE seq_no = 1",
        ),
    ]
}

/// Rows that say that something did not come.
fn absences() -> Vec<RuleFile> {
    vec![
        rule(
            "not_followed",
            TABLE,
            "SELECT ts, meter_id FROM meter_readings a WHERE seq_no = 1 AND NOT EXISTS (SELECT 1 FROM other_readings b\n\
             WHERE b.meter_id = a.meter_id AND b.ts > a.ts AND b.ts <= a.ts + INTERVAL '15 seconds')",
        ),
        rule(
            "expected_but_absent",
            TABLE,
            "SELECT w.window_start, w.window_end, m.meter_id, p.n FROM\n\
               (SELECT DISTINCT window_start, window_end FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute')) w\n\
             CROSS JOIN meters m\n\
             LEFT JOIN (SELECT meter_id, window_start, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute')\n\
                        WHERE seq_no = 3 GROUP BY meter_id, window_start) p\n\
             ON p.meter_id = m.meter_id AND p.window_start = w.window_start WHERE p.n IS NULL",
        ),
    ]
}

fn other_aggregates() -> Vec<RuleFile> {
    vec![
        rule(
            "in_order",
            TABLE,
            "SELECT meter_id, window_end, array_agg(seq_no ORDER BY ts) AS seqs, string_agg(meter_id || '-' || seq_no, ',' ORDER BY ts DESC) AS text\n\
             FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY meter_id, window_end",
        ),
        rule(
            "percentiles",
            TABLE,
            "SELECT window_end, percentile_cont(0.95) WITHIN GROUP (ORDER BY seq_no) AS p95, median(seq_no) AS middle, count(DISTINCT meter_id) AS meters,\n\
                bool_and(seq_no > 0) AS positive, bit_or(seq_no) AS bits, var_pop(seq_no) AS spread, sum(DISTINCT seq_no) AS kinds\n\
             FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY window_end",
        ),
        rule(
            "rollup",
            TABLE,
            "SELECT window_start, window_end, meter_id, seq_no, count(*) AS n, grouping(seq_no) AS is_total\n\
             FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, ROLLUP (meter_id, seq_no)",
        ),
        rule(
            "grouping_sets",
            TABLE,
            "SELECT window_end, meter_id, seq_no, max(u_a_v) AS top FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute')\n\
             GROUP BY GROUPING SETS ((window_end, meter_id), (window_end, seq_no), (window_end))",
        ),
        rule(
            "having",
            TABLE,
            "WITH w AS (SELECT window_start, meter_id, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY window_start, meter_id HAVING count(*) > 2)\n\
             SELECT window_start, count(*) AS busy FROM w GROUP BY window_start",
        ),
    ]
}

/// What comes later than its time says.
fn held_back() -> Vec<RuleFile> {
    vec![
        rule(
            "over_of_distinct",
            TABLE,
            "SELECT ts, meter_id, lag(ts) OVER (PARTITION BY meter_id ORDER BY ts) AS before FROM (SELECT DISTINCT ts, meter_id FROM meter_readings)",
        ),
        rule(
            "over_of_distinct_window",
            TABLE,
            "SELECT ts, meter_id, count(*) OVER (PARTITION BY meter_id ORDER BY ts) AS n FROM\n\
               (SELECT DISTINCT window_start, ts, meter_id FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute'))",
        ),
        rule(
            "over_of_top",
            TABLE,
            "SELECT ts, meter_id, sum(seq_no) OVER (PARTITION BY meter_id ORDER BY ts RANGE INTERVAL '90 seconds' PRECEDING) AS s FROM\n\
               (SELECT * FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') QUALIFY row_number() OVER (PARTITION BY window_end ORDER BY u_a_v DESC, ts) <= 3)",
        ),
        rule(
            "window_of_top_of_end",
            TABLE,
            "SELECT w, count(*) AS n FROM (SELECT date_bin(INTERVAL '45 seconds', ts) AS w FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute')\n\
               QUALIFY rank() OVER (PARTITION BY window_end ORDER BY u_a_v DESC) <= 9) GROUP BY w",
        ),
        rule(
            "window_of_window_join",
            TABLE,
            "SELECT date_bin(INTERVAL '45 seconds', a.ts) AS w, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') a\n\
             JOIN (SELECT meter_id, window_end, min(u_a_v) AS low FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY meter_id, window_end) b\n\
             ON a.meter_id = b.meter_id AND a.window_end = b.window_end AND a.u_a_v > b.low GROUP BY 1",
        ),
        rule(
            "window_of_due",
            TABLE,
            "SELECT date_bin(INTERVAL '1 minute', a.ts) AS w, count(*) AS n, count(b.seq_no) AS matched FROM\n\
               (SELECT ts, meter_id, ts + INTERVAL '2 minutes' AS due FROM meter_readings) a\n\
             LEFT JOIN other_readings b ON a.meter_id = b.meter_id AND b.ts BETWEEN a.due AND a.due + INTERVAL '5 seconds' GROUP BY 1",
        ),
        rule(
            "over_of_session",
            TABLE,
            "SELECT ts, meter_id, window_end, row_number() OVER (PARTITION BY window_end, meter_id ORDER BY seq_no, ts, _partition, _offset) AS nth FROM SESSION(meter_readings, ts, INTERVAL '6 seconds', meter_id)",
        ),
    ]
}

fn patterns() -> Vec<RuleFile> {
    let of = |id: &str, clauses: &str| {
        let select =
            format!("SELECT * FROM meter_readings MATCH_RECOGNIZE (PARTITION BY meter_id ORDER BY ts {clauses})");
        rule(id, TABLE, &select)
    };
    vec![
        of(
            "pattern_rise",
            "MEASURES first(a.ts) AS began, last(ts) AS ended, a.u_a_v AS from_v, last(up.u_a_v) AS to_v, count(up.*) AS steps\n\
             PATTERN (a up{2,}) DEFINE up AS up.u_a_v > prev(u_a_v) AND up.ts <= first(ts) + INTERVAL '5 minutes'",
        ),
        of(
            "pattern_workflow",
            "MEASURES low.ts AS low_ts, high.ts AS high_ts, high.u_a_v - low.u_a_v AS jump, classifier() AS last_symbol\n\
             AFTER MATCH SKIP TO NEXT ROW PATTERN (low other*? high)\n\
             DEFINE low AS u_a_v < 218, other AS other.ts <= low.ts + INTERVAL '3 minutes',\n\
             high AS high.u_a_v > low.u_a_v + 4 AND high.ts - low.ts <= INTERVAL '3 minutes'",
        ),
        of(
            "pattern_all_rows",
            "MEASURES classifier() AS is_a, match_number() AS number, avg(down.u_a_v) AS mean, first(u_a_v, 1) AS second\n\
             ALL ROWS PER MATCH WITH UNMATCHED ROWS AFTER MATCH SKIP PAST LAST ROW\n\
             PATTERN (top ({- down -}) (down | same){1,3}) DEFINE\n\
             down AS u_a_v < prev(u_a_v, 1) AND ts < prev(ts) + INTERVAL '2 minutes',\n\
             same AS same.seq_no = top.seq_no AND same.ts BETWEEN top.ts AND top.ts + INTERVAL '4 minutes'",
        ),
        of(
            "pattern_overlapping_rows",
            "MEASURES match_number() AS number, last(b.seq_no) AS b_no, sum(seq_no) AS total\n\
             ALL ROWS PER MATCH AFTER MATCH SKIP TO FIRST b PATTERN (a b+ c)\n\
             DEFINE b AS b.u_a_v >= a.u_a_v - 3 AND b.ts <= first(a.ts) + INTERVAL '3 minutes',\n\
             c AS c.u_a_v < avg(b.u_a_v) AND c.ts <= first(ts) + INTERVAL '3 minutes'",
        ),
        of(
            "pattern_any_order",
            "MEASURES first(ts) AS ts, max(u_a_v) AS top, min(x.seq_no) AS x_no\n\
             PATTERN (PERMUTE(x, y, z)) DEFINE x AS seq_no % 3 = 0 AND ts <= first(ts) + INTERVAL '6 minutes',\n\
             y AS seq_no % 3 = 1 AND ts <= first(ts) + INTERVAL '6 minutes',\n\
             z AS seq_no % 3 = 2 AND ts <= first(ts) + INTERVAL '6 minutes'",
        ),
        rule(
            "pattern_unanswered",
            TABLE,
            "WITH known AS (SELECT * FROM meter_readings WHERE u_a_v IS NOT NULL)\n\
             SELECT m.meter_id, m.ts, m.u_a_v FROM known MATCH_RECOGNIZE (\n\
               PARTITION BY meter_id ORDER BY ts MEASURES classifier() AS part ALL ROWS PER MATCH WITH UNMATCHED ROWS\n\
               PATTERN (high calm) DEFINE high AS u_a_v > 222,\n\
               calm AS calm.u_a_v < 221 AND calm.ts <= high.ts + INTERVAL '90 seconds') m\n\
             WHERE m.part IS NULL AND m.u_a_v > 222",
        ),
        rule(
            "pattern_then_window",
            TABLE,
            "SELECT window_start, count(*) AS falls, max(steps) AS longest FROM TUMBLE(\n\
               (SELECT * FROM meter_readings MATCH_RECOGNIZE (PARTITION BY meter_id ORDER BY ts\n\
                  MEASURES first(ts) AS began, count(*) AS steps PATTERN (a down+)\n\
                  DEFINE down AS u_a_v < prev(u_a_v) AND ts <= first(ts) + INTERVAL '2 minutes')),\n\
               began, INTERVAL '5 minutes') GROUP BY window_start",
        ),
        rule(
            "pattern_of_windows",
            TABLE,
            "WITH means AS (SELECT meter_id, window_start, window_end, avg(u_a_v) AS mean\n\
               FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY meter_id, window_start, window_end)\n\
             SELECT * FROM means MATCH_RECOGNIZE (\n\
               PARTITION BY meter_id ORDER BY window_end MEASURES first(window_end) AS began, last(window_end) AS ended, count(*) AS n\n\
               PATTERN (a b{1,4}) DEFINE b AS b.mean > prev(mean) AND b.window_end <= prev(window_end) + INTERVAL '2 minutes')",
        ),
    ]
}

fn domain_functions() -> Vec<RuleFile> {
    vec![
        rule(
            "standard_percentiles",
            TABLE,
            "SELECT meter_id, window_start, gb_percentile_95(u_a_v) AS p95_gb, nearest_rank_percentile(u_a_v, 0.95) AS p95,\n\
             nearest_rank_percentile(seq_no, 0.5) AS middle, plt(u_a_v) FILTER (WHERE seq_no < 9) AS plt\n\
             FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY meter_id, window_start",
        ),
        rule(
            "registers",
            TABLE,
            "SELECT meter_id, ts, register_delta_kwh(lag(energy_imp_kwh) OVER (PARTITION BY meter_id ORDER BY ts), energy_imp_kwh, 2) AS kwh,\n\
             tiered_amount(0, abs(seq_no), [2, 4], [0.5469, 0.5969, 0.8469]) AS amount, mask(meter_id, 1, 0) AS meter,\n\
             add_working_days(CAST(ts AS DATE), seq_no, [DATE '2026-03-03'], [DATE '2026-03-07']) AS due,\n\
             working_days_between(DATE '2026-02-27', CAST(ts AS DATE), [DATE '2026-03-03']) AS days FROM meter_readings",
        ),
    ]
}
