//! Rules whose result hangs on an order: among rows of equal order, and of stages that wait for each other.

use super::super::fleet::rule;
use super::{PATIENT, TABLE};
use crate::RuleFile;

const NARROW: &str = "(SELECT meter_id, ts, seq_no, u_a_v FROM meter_readings)";

/// Rows of equal order that do not show the identity of their event, or share it.
pub(super) fn ties() -> Vec<RuleFile> {
    let of = |id: &str, sql: &str| rule(id, TABLE, sql);
    vec![
        of(
            "ties_in_aggregates",
            &format!(
                "SELECT window_start, string_agg(meter_id, ',' ORDER BY seq_no) AS meters, first_value(u_a_v ORDER BY seq_no) AS first,\n\
                 last_value(u_a_v ORDER BY seq_no) AS last,\n\
                 array_agg(make_array(u_a_v) ORDER BY seq_no) AS lists, array_agg(DISTINCT seq_no ORDER BY seq_no) AS kinds,\n\
                 percentile_cont(0.5) WITHIN GROUP (ORDER BY u_a_v) AS middle\n\
                 FROM TUMBLE({NARROW}, ts, INTERVAL '1 minute') GROUP BY window_start"
            ),
        ),
        of(
            "ties_behind_a_join",
            "SELECT window_start, m.feeder, last_value(r.u_a_v ORDER BY r.seq_no) AS last, array_agg(m.un_v ORDER BY r.seq_no) AS nominal\n\
             FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') r JOIN meters m ON m.meter_id = r.meter_id GROUP BY window_start, m.feeder",
        ),
        of(
            "ties_in_distinct_on",
            "WITH both AS (SELECT meter_id, ts, seq_no, u_a_v FROM meter_readings UNION ALL SELECT meter_id, ts, seq_no, 0 - u_a_v FROM other_readings)\n\
                 SELECT DISTINCT ON (window_start, seq_no) window_start, seq_no, meter_id, u_a_v\n\
                 FROM TUMBLE(both, ts, INTERVAL '1 minute') ORDER BY window_start, seq_no, ts",
        ),
        of(
            "ties_of_rows",
            &format!(
                "SELECT ts, meter_id, seq_no, row_number() OVER (PARTITION BY seq_no ORDER BY ts) AS nth,\n\
                 lag(u_a_v) OVER (PARTITION BY seq_no ORDER BY ts) AS before,\n\
                 sum(u_a_v) OVER (PARTITION BY seq_no ORDER BY ts ROWS 3 PRECEDING) AS recent, rank() OVER (PARTITION BY seq_no ORDER BY ts) AS place FROM {NARROW}"
            ),
        ),
    ]
}

/// Several rows of one event, and rows that are of none.
pub(super) fn ties_of_kin() -> Vec<RuleFile> {
    let of = |id: &str, sql: &str| rule(id, TABLE, sql);
    vec![
        of(
            "ties_of_a_union",
            "SELECT ts, meter_id, v FROM (SELECT ts, meter_id, v, row_number() OVER (PARTITION BY meter_id ORDER BY ts) AS nth FROM (\n\
               SELECT ts, meter_id, seq_no AS v FROM meter_readings UNION ALL SELECT ts, meter_id, seq_no + 10 FROM other_readings)) WHERE nth < 9",
        ),
        of(
            "ties_of_the_same_union",
            "SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY meter_id ORDER BY ts) AS nth FROM (\n\
               SELECT * FROM meter_readings UNION ALL SELECT * FROM meter_readings)) WHERE nth < 9",
        ),
        of(
            "ties_of_copies",
            "SELECT ts, meter_id, window_start, lag(window_start) OVER (PARTITION BY meter_id ORDER BY ts) AS before\n\
             FROM HOP(meter_readings, ts, INTERVAL '1 minute', INTERVAL '3 minutes')",
        ),
        of(
            "ties_of_groups",
            "SELECT window_start, meter_id, n, row_number() OVER (PARTITION BY window_start ORDER BY n DESC) AS place FROM (\n\
               SELECT window_start, meter_id, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY window_start, meter_id)",
        ),
        of(
            "ties_without_order",
            "SELECT window_start, meter_id, seq_no, row_number() OVER (PARTITION BY window_start) AS nth, lead(u_a_v) OVER (PARTITION BY window_start) AS next\n\
             FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute')",
        ),
        of(
            "ties_of_pairs",
            "SELECT ts, meter_id, other, lag(other) OVER (PARTITION BY meter_id ORDER BY ts) AS before FROM (\n\
               SELECT a.ts, a.meter_id, b.seq_no AS other FROM meter_readings a\n\
               JOIN other_readings b ON b.meter_id = a.meter_id AND b.ts BETWEEN a.ts AND a.ts + INTERVAL '1 minute')",
        ),
        of(
            "ties_of_a_pattern",
            "WITH both AS (SELECT meter_id, ts, u_a_v FROM meter_readings UNION ALL SELECT meter_id, ts, u_a_v + 1 FROM other_readings)\n\
             SELECT * FROM both MATCH_RECOGNIZE (PARTITION BY meter_id ORDER BY ts MEASURES first(a.ts) AS began, last(up.u_a_v) AS top, count(up.*) AS steps\n\
               PATTERN (a up+) DEFINE up AS up.u_a_v > prev(u_a_v) AND up.ts <= first(ts) + INTERVAL '3 minutes')",
        ),
    ]
}

/// Frames of peers, lists and structs, and orders that hang on those below.
pub(super) fn ties_of_peers() -> Vec<RuleFile> {
    let of = |id: &str, sql: &str| rule(id, TABLE, sql);
    let both = "(SELECT meter_id, ts, seq_no, u_a_v FROM meter_readings UNION ALL SELECT meter_id, ts, seq_no, u_a_v + 1 FROM other_readings)";
    let frames = |from: &str| {
        format!(
            "SELECT ts, seq_no, meter_id, last_value(u_a_v) OVER (PARTITION BY seq_no ORDER BY ts) AS last_peer, nth_value(u_a_v, 2) OVER (PARTITION BY seq_no ORDER BY ts RANGE INTERVAL '30 seconds' PRECEDING) AS second,\n\
             first_value(u_a_v) OVER (PARTITION BY seq_no ORDER BY ts RANGE INTERVAL '30 seconds' PRECEDING) AS before, first_value(meter_id) OVER (PARTITION BY seq_no ORDER BY ts) AS first,\n\
             array_agg(meter_id) OVER (PARTITION BY seq_no ORDER BY ts RANGE INTERVAL '30 seconds' PRECEDING) AS meters, count(*) OVER (PARTITION BY seq_no ORDER BY ts) AS n FROM {from}"
        )
    };
    let within = |frame: &str| {
        format!(
            "SELECT ts, window_start, seq_no, meter_id, array_agg(meter_id) OVER (PARTITION BY window_start ORDER BY seq_no{frame}) AS meters,\n\
             last_value(u_a_v) OVER (PARTITION BY window_start ORDER BY seq_no{frame}) AS last, string_agg(meter_id, ',') OVER (PARTITION BY window_start) AS names\n\
             FROM TUMBLE((SELECT ts, meter_id, seq_no, u_a_v FROM meter_readings), ts, INTERVAL '1 minute')"
        )
    };
    let pairs = "(SELECT y.*, row_number() OVER (PARTITION BY x.meter_id ORDER BY x.ts) AS nth FROM meter_readings x\n\
         JOIN other_readings y ON y.meter_id = x.meter_id AND y.ts BETWEEN x.ts AND x.ts + INTERVAL '40 seconds')";
    vec![
        of("ties_in_frames", &frames("meter_readings")),
        of("ties_in_frames_of_union", &frames(both)),
        of("ties_in_windows", &within("")),
        of("ties_in_windows_groups", &within(" GROUPS 1 PRECEDING")),
        of("ties_in_windows_range", &within(" RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING")),
        of(
            "ties_of_lists",
            &format!(
                "SELECT window_start, array_agg(named_struct('v', u_a_v, 'm', meter_id) ORDER BY seq_no) AS structs, first_value(DISTINCT meter_id ORDER BY seq_no) AS first,\n\
                 array_agg(make_array(u_a_v, NULL) ORDER BY seq_no) AS lists FROM TUMBLE({NARROW}, ts, INTERVAL '1 minute') GROUP BY window_start"
            ),
        ),
        of(
            "ties_of_one_row",
            &format!(
                "SELECT window_start, string_agg(meter_id, ',' ORDER BY seq_no) AS meters, string_agg(CAST(u_a_v AS VARCHAR), ',' ORDER BY seq_no) AS volts,\n\
                 first_value(meter_id ORDER BY seq_no) AS meter, first_value(u_a_v ORDER BY seq_no) AS volt FROM TUMBLE({NARROW}, ts, INTERVAL '1 minute') GROUP BY window_start"
            ),
        ),
        of(
            "ties_of_numbers",
            &format!(
                "SELECT window_start, array_agg(nth ORDER BY seq_no) AS nths FROM TUMBLE({pairs}, ts, INTERVAL '1 minute') GROUP BY window_start"
            ),
        ),
        of(
            "ties_of_numbers_over",
            &format!(
                "SELECT ts, meter_id, nth, lag(nth) OVER (PARTITION BY meter_id ORDER BY ts) AS before FROM {pairs}"
            ),
        ),
    ]
}

/// Aggregates over frames that move, of values that drown others.
pub(super) fn moving_frames() -> Vec<RuleFile> {
    let values = "(SELECT ts, meter_id, seq_no, CASE WHEN seq_no = 3 THEN 1e25 WHEN seq_no = 4 THEN NULL ELSE u_a_v END AS v FROM meter_readings)";
    let frames = [
        " ROWS 2 PRECEDING",
        " RANGE INTERVAL '20 seconds' PRECEDING",
        " RANGE BETWEEN CURRENT ROW AND INTERVAL '30 seconds' FOLLOWING",
    ];
    let all = frames.into_iter().enumerate().map(|(at, frame)| {
        let over = format!("OVER (PARTITION BY meter_id ORDER BY ts{frame})");
        let sql = format!(
            "SELECT ts, meter_id, seq_no, sum(v) {over} AS total, avg(v) {over} AS mean, var_pop(v) {over} AS spread, string_agg(CAST(seq_no AS VARCHAR), ',') {over} AS names,\n\
             gb_percentile_95(v) {over} AS high, bool_or(seq_no > 3) {over} AS any, count(DISTINCT seq_no) {over} AS kinds, percentile_cont(DISTINCT seq_no, 0.5) {over} AS middle, sum(seq_no) FILTER (WHERE seq_no <> 2) {over} AS n, rms_mean(v) {over} AS rms FROM {values}"
        );
        rule(&format!("moving_frame_{at}"), TABLE, &sql)
    });
    all.collect()
}

/// Functions that follow a value.
pub(super) fn running() -> Vec<RuleFile> {
    let of = |id: &str, from: &str, frame: &str| {
        let over = format!("OVER (PARTITION BY seq_no ORDER BY ts{frame})");
        let sql = format!(
            "SELECT ts, seq_no, meter_id, ewma(u_a_v, 0.2) {over} AS mean, ewma_z(u_a_v, 0.2) {over} AS z, cusum_high(u_a_v, 220, 2) {over} AS high, cusum_low(u_a_v, 220, 2) {over} AS low,\n\
             page_hinkley(u_a_v, 1) {over} AS drift, hampel_z(u_a_v, 12) {over} AS robust_z, seasonal_z(u_a_v, ts, 0.3) {over} AS season_z, anomaly_score(u_a_v, ts) {over} AS score, count(*) {over} AS n FROM {from}"
        );
        rule(id, TABLE, &sql)
    };
    vec![
        rule(
            "running_over_gaps",
            TABLE,
            &format!(
                "SELECT ts, seq_no, meter_id, last_value(v) IGNORE NULLS OVER w AS filled, lag(v) IGNORE NULLS OVER w AS before, first_value(v) IGNORE NULLS OVER w AS first,\n\
                 last_value(v) IGNORE NULLS OVER (w ROWS UNBOUNDED PRECEDING) AS by_row, last_value(v) IGNORE NULLS OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS earlier,\n\
                 max(v) OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS highest, count(*) OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS n,\n\
                 last_value(v) OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS last, nth_value(v, 2) OVER (w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS second\n\
                 FROM (SELECT ts, seq_no, meter_id, CASE WHEN u_a_v > 225 THEN u_a_v END AS v FROM {NARROW}) WINDOW w AS (PARTITION BY meter_id ORDER BY ts)"
            ),
        ),
        of("running_values", "meter_readings", ""),
        of("running_values_by_rows", NARROW, " ROWS UNBOUNDED PRECEDING"),
        of(
            "running_values_of_windows",
            "(SELECT seq_no, window_end AS ts, min(meter_id) AS meter_id, avg(u_a_v) AS u_a_v FROM TUMBLE(meter_readings, ts, INTERVAL '20 seconds') GROUP BY seq_no, window_end)",
            "",
        ),
    ]
}

/// Unions of times that are computed in several ways.
fn held_by_unions() -> Vec<RuleFile> {
    let of = |id: &str, sql: &str| rule(id, TABLE, sql);
    let minutes = "(SELECT meter_id, window_end AS at, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY meter_id, window_start, window_end)";
    let both = format!(
        "(SELECT meter_id, at, n FROM {minutes} UNION ALL SELECT meter_id, ts AS at, seq_no AS n FROM other_readings)"
    );
    let windows = format!(
        "(SELECT meter_id, at, n FROM {minutes} UNION ALL SELECT meter_id, window_start, count(*) FROM HOP(other_readings, ts, INTERVAL '1 minute', INTERVAL '3 minutes') GROUP BY meter_id, window_start, window_end)"
    );
    vec![
        of("held_by_either", &format!("SELECT * FROM {both}")),
        of("held_by_either_window", &format!("SELECT * FROM {windows}")),
        of(
            "held_by_either_before",
            &format!(
                "SELECT *, sum(n) OVER (PARTITION BY meter_id ORDER BY at RANGE INTERVAL '2 minutes' PRECEDING) AS lately FROM {both}"
            ),
        ),
        of(
            "held_by_either_again",
            &format!(
                "SELECT window_end, meter_id, sum(n) AS n, max(at) AS at FROM TUMBLE({windows}, at, INTERVAL '2 minutes') GROUP BY meter_id, window_start, window_end"
            ),
        ),
        of(
            "held_by_either_joined",
            &format!(
                "SELECT a.at, a.n, b.seq_no FROM {both} a LEFT JOIN meter_readings b ON b.meter_id = a.meter_id AND b.ts BETWEEN a.at AND a.at + INTERVAL '20 seconds'"
            ),
        ),
        of("held_by_either_grouped", &format!("SELECT at, count(*) AS n FROM {both} GROUP BY at")),
    ]
}

/// Stages over rows that come later than an instant in them says.
pub(super) fn held_by_stages() -> Vec<RuleFile> {
    let of = |id: &str, sql: &str| rule(id, TABLE, sql);
    let counted = |window: &str| {
        format!(
            "SELECT window_start, window_end, meter_id, count(*) OVER (PARTITION BY window_start, window_end) AS n FROM {window}"
        )
    };
    let cumulate = "CUMULATE(meter_readings, ts, INTERVAL '1 minute', INTERVAL '4 minutes')";
    let day = "TUMBLE(meter_readings, ts, INTERVAL '1 day', 'UTC')";
    let mut rules = Vec::new();
    rules.extend(held_by_unions());
    for (name, header, window) in [
        ("cumulate", TABLE, cumulate),
        ("hop", TABLE, "HOP(meter_readings, ts, INTERVAL '1 minute', INTERVAL '3 minutes')"),
        ("day", PATIENT, day),
    ] {
        let counted = counted(window);
        rules.push(rule(
            &format!("held_{name}_starts"),
            header,
            &format!("SELECT DISTINCT window_start FROM (SELECT DISTINCT window_start, window_end FROM ({counted}) WHERE n > 0)"),
        ));
        rules.push(rule(
            &format!("held_{name}_lag"),
            header,
            &format!(
                "SELECT meter_id, window_start, window_end, c, lag(c) OVER (PARTITION BY meter_id ORDER BY window_start, window_end) AS before FROM (\n\
                   SELECT meter_id, window_start, window_end, max(n) AS c FROM ({counted}) GROUP BY meter_id, window_start, window_end)"
            ),
        ));
        rules.push(rule(
            &format!("held_{name}_grouped"),
            header,
            &format!(
                "SELECT date_bin(INTERVAL '10 minutes', window_start) AS start, sum(c) AS c FROM (\n\
                   SELECT window_start, window_end, count(*) AS c FROM ({counted}) GROUP BY window_start, window_end) GROUP BY 1"
            ),
        ));
    }
    rules.push(of(
        "held_sessions",
        "SELECT date_bin(INTERVAL '5 minutes', window_end) AS start, count(*) AS n, sum(c) AS c FROM (\n\
           SELECT meter_id, window_end, count(*) AS c FROM SESSION(\n\
             (SELECT meter_id, ts, count(*) OVER (PARTITION BY meter_id ORDER BY ts RANGE BETWEEN CURRENT ROW AND INTERVAL '1 minute' FOLLOWING) AS n FROM meter_readings),\n\
             ts, INTERVAL '20 seconds', meter_id) WHERE n > 1 GROUP BY meter_id, window_start, window_end) GROUP BY 1",
    ));
    rules.push(of(
        "held_pairs",
        &format!(
            "SELECT window_start, count(*) AS n, sum(far) AS far FROM (\n\
               SELECT a.window_start, a.c, b.c AS far FROM (SELECT window_start, window_end, max(n) AS c FROM ({counted}) GROUP BY window_start, window_end) a\n\
               LEFT JOIN (SELECT window_start, window_end, count(*) AS c FROM TUMBLE(other_readings, ts, INTERVAL '4 minutes') GROUP BY window_start, window_end) b\n\
               ON a.window_end = b.window_end) WHERE window_start IS NOT NULL GROUP BY window_start",
            counted = counted(cumulate)
        ),
    ));
    rules
}
