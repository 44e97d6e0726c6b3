//! Rules over pairs of events that lie far apart, taken by the time of the one or the other.

use super::super::fleet::rule;
use super::TABLE;
use crate::RuleFile;

/// Readings with those of the other stream that follow within three minutes.
const PAIRS: &str = "(SELECT x.ts AS t, y.ts AS u, x.meter_id AS k, x.seq_no AS m, y.seq_no AS n FROM meter_readings x\n\
     JOIN other_readings y ON y.meter_id = x.meter_id AND y.ts BETWEEN x.ts AND x.ts + INTERVAL '3 minutes')";
/// Readings with those before them, and with those of the same time.
const BEFORE: &str = "(SELECT x.ts AS t, y.ts AS u, z.ts AS v, x.meter_id AS k, y.seq_no AS n FROM meter_readings x\n\
     JOIN meter_readings y ON y.meter_id = x.meter_id AND y.ts BETWEEN x.ts - INTERVAL '100 seconds' AND x.ts\n\
     JOIN meter_readings z ON z.meter_id = x.meter_id AND z.ts = x.ts)";
const BIN: &str = "date_bin(INTERVAL '1 minute', t)";

pub(super) fn pairs() -> Vec<RuleFile> {
    [stages_over_pairs(), joins_of_pairs(), one_time_twice(), unions_of_pairs(), either_side()]
        .into_iter()
        .flatten()
        .collect()
}

fn of(id: &str, sql: &str) -> RuleFile {
    rule(id, TABLE, sql)
}

fn binned(id: &str, values: &str, from: &str) -> RuleFile {
    of(id, &format!("SELECT {BIN} AS at, {values} FROM ({from}) GROUP BY {BIN}"))
}

fn stages_over_pairs() -> Vec<RuleFile> {
    vec![
        binned(
            "pairs_over",
            "count(*) AS c, sum(l) AS l",
            &format!("SELECT t, lag(n) OVER (PARTITION BY k ORDER BY u, n, t) AS l FROM {PAIRS}"),
        ),
        binned(
            "pairs_over_instant",
            "sum(l) AS l",
            &format!("SELECT t, count(*) OVER (PARTITION BY u) AS l FROM {PAIRS}"),
        ),
        binned(
            "pairs_grouped",
            "sum(c) AS c",
            &format!("SELECT t, date_bin(INTERVAL '2 minutes', u) AS w, count(*) AS c FROM {PAIRS} GROUP BY 1, 2"),
        ),
        binned("pairs_distinct", "count(*) AS c", &format!("SELECT DISTINCT u, t FROM {PAIRS}")),
        binned(
            "pairs_pattern",
            "count(*) AS c, sum(q) AS q",
            &format!(
                "WITH p AS (SELECT * FROM {PAIRS}) SELECT t, q FROM p MATCH_RECOGNIZE (PARTITION BY k ORDER BY u MEASURES count(*) AS q\n\
                 ALL ROWS PER MATCH WITH UNMATCHED ROWS PATTERN (a b) DEFINE b AS b.n > a.n AND b.u <= a.u + INTERVAL '1 minute')"
            ),
        ),
        of(
            "pairs_running",
            &format!(
                "SELECT t, u, n, c, sum(c) OVER (ORDER BY t) AS s FROM (SELECT t, u, n, count(*) OVER (ORDER BY u) AS c FROM {PAIRS})"
            ),
        ),
    ]
}

fn joins_of_pairs() -> Vec<RuleFile> {
    let counted = format!("(SELECT t, u, n, k, count(*) OVER (ORDER BY u) AS c FROM {PAIRS})");
    vec![
        binned(
            "pairs_joined",
            "count(*) AS c",
            &format!("SELECT q.t FROM {PAIRS} q LEFT JOIN other_readings z ON z.meter_id = q.k AND z.ts = q.u"),
        ),
        of(
            "pairs_joined_late",
            &format!(
                "SELECT z.ts, z.seq_no, q.n, q.c FROM meter_readings z LEFT JOIN {counted} q ON q.k = z.meter_id AND q.t = z.ts"
            ),
        ),
        of(
            "pairs_absent",
            &format!(
                "SELECT z.ts, z.seq_no FROM meter_readings z WHERE NOT EXISTS (SELECT 1 FROM {counted} q WHERE q.k = z.meter_id AND q.t = z.ts AND q.c > 3)"
            ),
        ),
        binned(
            "pairs_present",
            "count(*) AS c",
            &format!(
                "SELECT q.t FROM {PAIRS} q WHERE EXISTS (SELECT 1 FROM other_readings z WHERE z.meter_id = q.k AND z.ts = q.u)"
            ),
        ),
        of(
            "pairs_on_the_right",
            &format!(
                "SELECT date_bin(INTERVAL '1 minute', q.u) AS at, count(*) AS c FROM meter_readings z JOIN {PAIRS} q\n\
             ON q.k = z.meter_id AND q.t BETWEEN z.ts - INTERVAL '1 minute' AND z.ts GROUP BY 1"
            ),
        ),
        of(
            "pairs_in_sessions",
            &format!(
                "SELECT k, window_start, window_end, sum(c) AS c FROM SESSION((SELECT t, k, c FROM {counted}), t, INTERVAL '40 seconds', k) GROUP BY k, window_start, window_end"
            ),
        ),
    ]
}

fn one_time_twice() -> Vec<RuleFile> {
    let hops = "HOP((SELECT ts, seq_no, window_start AS s FROM HOP(meter_readings, ts, INTERVAL '1 minute', INTERVAL '2 minutes')), ts, INTERVAL '1 minute', INTERVAL '2 minutes')";
    vec![
        of(
            "three_of_one_stream",
            &format!("SELECT date_bin(INTERVAL '1 minute', u) AS at, count(*) AS c FROM {BEFORE} GROUP BY 1"),
        ),
        of(
            "three_of_one_stream_two_bins",
            &format!(
                "SELECT t, p, q, count(*) AS c FROM (SELECT t, date_bin(INTERVAL '1 minute', u) AS p, date_bin(INTERVAL '1 minute', v) AS q FROM {BEFORE}) GROUP BY t, p, q"
            ),
        ),
        of(
            "three_of_one_stream_over",
            &format!("SELECT t, u, v, n, lag(n) OVER (PARTITION BY k, u ORDER BY v, n) AS l FROM {BEFORE}"),
        ),
        of(
            "hop_of_hop_by_itself",
            &format!(
                "SELECT s, seq_no, row_number() OVER (PARTITION BY window_start ORDER BY ts, seq_no, s) AS nth FROM {hops}"
            ),
        ),
        of(
            "hop_of_hop_summed",
            &format!(
                "SELECT s, sum(m) AS m FROM (SELECT s, row_number() OVER (PARTITION BY window_start ORDER BY ts, seq_no, s) AS m FROM {hops}) GROUP BY s"
            ),
        ),
    ]
}

fn unions_of_pairs() -> Vec<RuleFile> {
    let both = format!("SELECT u AS t, n FROM {BEFORE} UNION ALL SELECT ts, seq_no FROM other_readings");
    vec![
        binned("union_of_pairs", "count(*) AS c, sum(n) AS n", &both),
        of("union_of_pairs_over", &format!("SELECT t, n, lag(n) OVER (ORDER BY t, n) AS l FROM ({both})")),
        of(
            "union_of_pairs_two_times",
            &format!(
                "SELECT date_bin(INTERVAL '1 minute', t) AS at, sum(c) AS c FROM (SELECT t, count(*) OVER (PARTITION BY date_bin(INTERVAL '1 minute', u)) AS c FROM (\n\
             SELECT t, u FROM {PAIRS} UNION ALL SELECT ts AS t, ts AS u FROM other_readings)) GROUP BY 1"
            ),
        ),
    ]
}

fn either_side() -> Vec<RuleFile> {
    let either = "(SELECT coalesce(x.ts, y.ts) AS t, coalesce(x.meter_id, y.meter_id) AS k, x.seq_no AS n FROM meter_readings x\n\
         FULL JOIN other_readings y ON y.meter_id = x.meter_id AND y.ts BETWEEN x.ts AND x.ts + INTERVAL '20 seconds')";
    let grouped = format!("(SELECT k, {BIN} AS w, count(*) AS n FROM {either} GROUP BY k, {BIN})");
    vec![
        of("either_then_lag", &format!("SELECT k, w, n, lag(n) OVER (PARTITION BY k ORDER BY w) AS l FROM {grouped}")),
        of(
            "either_then_windows",
            &format!("SELECT date_bin(INTERVAL '3 minutes', w) AS at, sum(n) AS n FROM {grouped} GROUP BY 1"),
        ),
        of(
            "either_over",
            &format!(
                "SELECT {BIN} AS at, sum(c) AS c FROM (SELECT t, count(*) OVER (PARTITION BY k ORDER BY t) AS c FROM {either}) GROUP BY {BIN}"
            ),
        ),
        of(
            "reference_with_numbers",
            "SELECT window_start, count(*) AS c FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') r\n\
             JOIN (SELECT meter_id, row_number() OVER (PARTITION BY meter_id ORDER BY un_v) AS nth FROM meters) q ON q.meter_id = r.meter_id GROUP BY window_start, window_end",
        ),
        of(
            "window_end_grouped_again",
            "SELECT t, sum(n) AS n FROM (SELECT window_end AS t, seq_no, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY window_end, seq_no) GROUP BY t",
        ),
        of(
            "window_moved_twice",
            "SELECT DISTINCT t - INTERVAL '7 minutes' AS t FROM (SELECT window_start - INTERVAL '2 minutes' AS t, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY 1)",
        ),
    ]
}
