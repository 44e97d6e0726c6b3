//! Every refusal: its code, the text it underlines, and that something is said about what to write.

use std::collections::BTreeSet;

use super::fleet::{catalog, compile, rule};
use crate::diagnostic::code;
use crate::{Diagnostic, RuleFile, RuleSet, explain};

const TABLE: &str = "kind = \"table\"";
const ALERT: &str = "kind = \"alert\"\nentity = \"meter_id\"";
const WINDOW: &str = "TUMBLE(meter_readings, ts, INTERVAL '1 minute')";

fn mistakes(files: &[RuleFile]) -> Vec<Diagnostic> {
    RuleSet::compile(&catalog(), files).err().unwrap_or_default()
}

/// Header, query, expected code, underlined text.
#[track_caller]
fn check(header: &str, sql: &str, code: &str, underlined: &str) {
    let file = rule("r", header, sql);
    let mistakes = mistakes(std::slice::from_ref(&file));
    let seen: Vec<(&str, &str)> = mistakes
        .iter()
        .map(|mistake| (mistake.code, mistake.span.clone().map_or("", |span| &file.text[span])))
        .collect();
    assert!(
        seen.contains(&(code, underlined)),
        "{sql}\nexpected {code} at `{underlined}`, got {seen:#?}\n{mistakes:#?}"
    );
    assert!(mistakes.iter().all(|mistake| mistake.span.is_some()), "every mistake has a place: {mistakes:#?}");
    assert!(
        mistakes.iter().all(|m| m.help.is_some() || m.code == code::SQL_SYNTAX || m.code == code::PLANNING),
        "{mistakes:#?}"
    );
}

#[test]
fn wrong_names_are_found_with_the_right_ones() {
    check(TABLE, "SELECT ts, u_a_b FROM meter_readings", code::UNKNOWN_COLUMN, "u_a_b");
    check(TABLE, "SELECT r.ts, r.volt FROM meter_readings r", code::UNKNOWN_COLUMN, "r.volt");
    check(TABLE, "SELECT ts FROM meter_reading", code::UNKNOWN_TABLE, "meter_reading");
    check(TABLE, "SELECT ts, sqroot(u_a_v) AS x FROM meter_readings", code::UNKNOWN_FUNCTION, "sqroot(u_a_v)");
    check(TABLE, "SELECT ts FROM SLIDE(meter_readings, ts)", code::UNKNOWN_TABLE, "SLIDE(meter_readings, ts)");
    check(TABLE, "SELECT ts FROM meter_readings WHERE u_a_v > $limit", code::PARAM_UNKNOWN, "$limit");
    for (sql, help) in [
        ("SELECT ts, u_a_b FROM meter_readings".to_owned(), "write `u_a_v`"),
        (format!("SELECT window_end, max(u_a) AS x FROM {WINDOW} GROUP BY window_start, window_end"), "write `u_a_v`"),
    ] {
        assert_eq!(mistakes(&[rule("r", TABLE, &sql)])[0].help.as_deref(), Some(help), "{sql}");
    }
}

#[test]
fn what_beginners_forget_is_told_in_their_words() {
    let not_grouped =
        format!("SELECT meter_id, window_end, max(u_a_v) AS x FROM {WINDOW} GROUP BY window_start, window_end");
    check(TABLE, &not_grouped, code::PLANNING, "meter_id");
    let quoted = "kind = \"table\"\nparams = { upper = \"7.0\" }";
    let found = mistakes(&[rule("r", quoted, "SELECT ts, u_a_v * (1 + $upper / 100) AS x FROM meter_readings")]);
    assert!(found[0].help.as_deref().is_some_and(|help| help.contains("without quotes")), "{found:#?}");
    let bare = "kind = \"table\"\nparams = { width = 15 }";
    let window = "SELECT window_end, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL $width) GROUP BY window_start, window_end";
    check(bare, window, code::PARAM_UNIT, "width");
    check(
        TABLE,
        "SELECT window_end FROM TUMBLE(meter_readings, ts, 10)",
        code::TUMBLE,
        "TUMBLE(meter_readings, ts, 10)",
    );
}

/// The codes of what is wrong with an alert rule that is told early.
fn told_early(header: &str, select: &str) -> Vec<&'static str> {
    let header = format!("{ALERT}\ndelivery = \"low_latency\"\n{header}");
    mistakes(&[rule("r", &header, select)]).into_iter().map(|mistake| mistake.code).collect()
}

#[test]
fn alerts_that_whoever_computes_them_again_finds_again_are_told_early() {
    let hop = "HOP(meter_readings, ts, INTERVAL '1 minute', INTERVAL '3 minutes')";
    let by_window = "GROUP BY meter_id, window_start, window_end";
    for select in [
        "SELECT meter_id, ts, u_a_v AS measured FROM meter_readings WHERE u_a_v > 250".to_owned(),
        "SELECT meter_id, ts, u_a_v > 250 AS firing FROM meter_readings".to_owned(),
        "SELECT r.meter_id, r.ts, u_a_v > m.un_v AS firing FROM meter_readings r JOIN meters m ON m.meter_id = r.meter_id"
            .to_owned(),
        format!("SELECT meter_id, window_end, max(u_a_v) AS m FROM {WINDOW} {by_window}"),
        format!("SELECT meter_id, window_start, window_end, max(u_a_v) > 250 AS firing FROM {WINDOW} {by_window}"),
        format!("SELECT meter_id, window_start, avg(seq_no) > 3 AS firing FROM {WINDOW} {by_window}"),
        format!("SELECT meter_id, window_end, avg(CAST(u_a_v AS DECIMAL(12, 3))) > 250 AS firing FROM {hop} {by_window}"),
        "SELECT meter_id, ts, u_a_v - lag(u_a_v) OVER (PARTITION BY meter_id ORDER BY ts) > 9 AS firing FROM meter_readings"
            .to_owned(),
        "SELECT meter_id, window_end, count(*) AS n FROM SESSION(meter_readings, ts, INTERVAL '1 minute', meter_id)\n\
         GROUP BY meter_id, window_start, window_end"
            .to_owned(),
    ] {
        assert_eq!(told_early("", &select), [""; 0], "{select}");
    }
    let early = format!("{ALERT}\ndelivery = \"low_latency\"");
    let rule = rule("r", &early, "SELECT meter_id, ts FROM meter_readings WHERE u_a_v > 250");
    assert!(
        explain::explain(&compile(&[rule]), "r").is_some_and(|text| text.contains("at least once, with the same id"))
    );
}

#[test]
fn alerts_that_may_be_others_when_they_are_computed_again_are_not_told_early() {
    let by_window = "GROUP BY meter_id, window_start, window_end";
    let cumulate = "CUMULATE(meter_readings, ts, INTERVAL '1 minute', INTERVAL '4 minutes')";
    for select in [
        // The last digit.
        format!("SELECT meter_id, window_end, avg(u_a_v) > 250 AS firing FROM {WINDOW} {by_window}"),
        format!("SELECT meter_id, window_end, sum(u_a_v) AS measured FROM {WINDOW} {by_window}"),
        "SELECT meter_id, ts, avg(u_a_v) OVER (PARTITION BY meter_id ORDER BY ts RANGE INTERVAL '5 minutes' PRECEDING) AS m FROM meter_readings"
            .to_owned(),
        // The order: windows that begin together, sessions of several keys, pairs.
        format!("SELECT meter_id, window_start, count(*) > 3 AS firing FROM {cumulate} {by_window}"),
        "SELECT meter_id, window_start, window_end, count(*) > 3 AS firing FROM SESSION(meter_readings, ts, INTERVAL '1 minute', meter_id)\n\
         GROUP BY meter_id, window_start, window_end"
            .to_owned(),
        "SELECT a.meter_id, a.ts, b.u_a_v > a.u_a_v AS firing FROM meter_readings a JOIN other_readings b\n\
         ON a.meter_id = b.meter_id AND b.ts BETWEEN a.ts - INTERVAL '1 minute' AND a.ts + INTERVAL '1 minute'"
            .to_owned(),
    ] {
        assert_eq!(told_early("", &select), [code::DELIVERY], "{select}");
    }
    let window = format!("SELECT meter_id, window_end, max(u_a_v) > 250 AS firing FROM {WINDOW} {by_window}");
    assert_eq!(told_early("late = \"update\"", &window), [code::DELIVERY]);
}

#[test]
fn syntax_errors_have_their_place() {
    check(TABLE, "SELECT ts FORM meter_readings WHERE", code::SQL_SYNTAX, "meter_readings");
    check(TABLE, "SELECT ts FROM meter_readings; SELECT 1", code::SQL_NOT_ONE_QUERY, "SELECT 1");
    check(TABLE, "SELECT ts, meter_id + ts AS x FROM meter_readings", code::PLANNING, "meter_id + ts");
}

#[test]
fn unbounded_shapes_are_refused() {
    check(TABLE, "SELECT ts FROM meter_readings ORDER BY ts", code::ORDER_BY, "ts");
    check(TABLE, "SELECT ts FROM meter_readings LIMIT 5", code::LIMIT, "5");
    check(TABLE, "SELECT DISTINCT meter_id FROM meter_readings", code::UNBOUNDED_AGGREGATE, "meter_readings");
    for over in [
        "sum(u_a_v) OVER (PARTITION BY meter_id)",
        "sum(u_a_v) OVER (PARTITION BY meter_id ORDER BY seq_no)",
        "sum(u_a_v) OVER (PARTITION BY meter_id ORDER BY ts DESC)",
        "lead(u_a_v) OVER (PARTITION BY meter_id ORDER BY ts)",
        "ntile(4) OVER (PARTITION BY meter_id ORDER BY ts)",
        "sum(u_a_v) OVER (PARTITION BY meter_id ORDER BY ts ROWS BETWEEN CURRENT ROW AND 2 FOLLOWING)",
        "sum(u_a_v) OVER (PARTITION BY meter_id ORDER BY ts ROWS BETWEEN UNBOUNDED PRECEDING AND 2 PRECEDING)",
        "sum(u_a_v) OVER (PARTITION BY meter_id ORDER BY ts GROUPS 2 PRECEDING)",
        "array_agg(u_a_v) OVER (PARTITION BY meter_id ORDER BY ts)",
        "count(DISTINCT u_a_v) OVER (PARTITION BY meter_id ORDER BY ts)",
    ] {
        check(
            TABLE,
            &format!("SELECT ts, {over} AS s FROM meter_readings"),
            code::OVER,
            over.split(" OVER").next().unwrap_or(over),
        );
    }
    check(
        TABLE,
        "SELECT meter_id, count(*) AS n FROM meter_readings GROUP BY meter_id",
        code::UNBOUNDED_AGGREGATE,
        "meter_id",
    );
    check(TABLE, "SELECT ts, now() AS at FROM meter_readings", code::VOLATILE, "now()");
    check(TABLE, "SELECT ts, random() AS x FROM meter_readings", code::VOLATILE, "random()");
    check(
        TABLE,
        "SELECT a.ts FROM meter_readings a JOIN other_readings b ON a.meter_id = b.meter_id",
        code::STREAM_JOIN,
        "other_readings b",
    );
    check(
        TABLE,
        "SELECT r.ts FROM meter_readings r RIGHT JOIN meters m ON r.meter_id = m.meter_id",
        code::PRESERVED_REFERENCE,
        "meters m",
    );
    check(
        TABLE,
        "SELECT ts FROM meter_readings INTERSECT SELECT ts FROM other_readings",
        code::SET_OPERATION,
        "SELECT ts FROM meter_readings INTERSECT SELECT ts FROM other_readings",
    );
    check(
        TABLE,
        "SELECT ts FROM meter_readings WHERE u_a_v > (SELECT max(un_v) FROM meters)",
        code::SUBQUERY,
        "SELECT max(un_v) FROM meters",
    );
    check(TABLE, "SELECT meter_id, un_v FROM meters", code::NO_STREAM, "meters");
}

#[test]
fn aggregates_that_depend_on_order_or_estimate_are_refused() {
    let sql = format!(
        "SELECT meter_id, window_end, approx_distinct(seq_no) AS n FROM {WINDOW} GROUP BY meter_id, window_end"
    );
    check(ALERT, &sql, code::APPROXIMATE, "approx_distinct(seq_no)");
    let sql = format!("SELECT window_end, first_value(seq_no) AS x FROM {WINDOW} GROUP BY window_end");
    check(TABLE, &sql, code::ORDER_SENSITIVE, "first_value(seq_no)");
    let sql = format!("SELECT window_end, array_agg(seq_no) AS x FROM {WINDOW} GROUP BY window_end");
    check(TABLE, &sql, code::ORDER_SENSITIVE, "array_agg(seq_no)");
    let sql = format!("SELECT window_end, nth_value(seq_no, 2 ORDER BY ts) AS x FROM {WINDOW} GROUP BY window_end");
    let file = rule("r", TABLE, &sql);
    assert_eq!(mistakes(&[file])[0].code, code::ORDER_SENSITIVE);
}

#[test]
fn windows_are_over_the_event_time() {
    check(
        TABLE,
        "SELECT window_end, count(*) AS n FROM TUMBLE(meter_readings, ts) GROUP BY window_end",
        code::TUMBLE,
        "TUMBLE(meter_readings, ts)",
    );
    for call in [
        "HOP(meter_readings, ts, INTERVAL '1 minute')",
        "CUMULATE(meter_readings, ts, INTERVAL '1 minute')",
        "SESSION(meter_readings, ts, seq_no)",
        "TUMBLE((SELECT ts, seq_no AS window_end FROM meter_readings), ts, INTERVAL '1 minute')",
        "TUMBLE(meter_readings, ts, INTERVAL '1 hour', 'Asia/Kolkata')",
        "TUMBLE(meter_readings, ts, INTERVAL '1 day', 'Asia/Nowhere')",
    ] {
        check(TABLE, &format!("SELECT window_end, count(*) AS n FROM {call} GROUP BY window_end"), code::TUMBLE, call);
    }
    check(
        TABLE,
        "SELECT window_end, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '1 month') GROUP BY window_end",
        code::TUMBLE,
        "window_end",
    );
    check(
        TABLE,
        "SELECT window_start, count(*) AS n FROM SESSION(meter_readings, ts, INTERVAL '1 minute') GROUP BY window_start",
        code::UNBOUNDED_AGGREGATE,
        "window_start",
    );
    let nested = "SELECT window_end, max(began) AS began FROM TUMBLE((SELECT at, window_start AS began FROM SESSION(\n\
        (SELECT meter_id, window_end AS at FROM SESSION(meter_readings, ts, INTERVAL '10 seconds', meter_id) GROUP BY meter_id, window_end),\n\
        at, INTERVAL '10 minutes', meter_id)), at, INTERVAL '1 minute') GROUP BY window_end";
    assert_eq!(mistakes(&[rule("r", TABLE, nested)])[0].code, code::UNBOUNDED_AGGREGATE, "rows of open sessions");
    let inner = format!("SELECT window_end, count(*) AS n FROM {WINDOW} GROUP BY window_end");
    let outer = rule("outer_rule", TABLE, "SELECT n, count(*) AS m FROM inner_rule GROUP BY n");
    let codes: Vec<_> = mistakes(&[rule("inner_rule", TABLE, &inner), outer]).iter().map(|m| m.code).collect();
    assert!(codes.contains(&code::UNBOUNDED_AGGREGATE), "{codes:?}");
}

#[test]
fn the_output_keeps_its_promises() {
    check(ALERT, "SELECT ts, u_a_v FROM meter_readings", code::ENTITY_COLUMN, "meter_readings");
    check(ALERT, "SELECT meter_id, ts, u_a_v AS firing FROM meter_readings", code::COLUMN_TYPE, "u_a_v AS firing");
    check(TABLE, "SELECT meter_id, u_a_v FROM meter_readings", code::EVENT_TIME_COLUMN, "meter_readings");
    check(
        TABLE,
        &format!("SELECT meter_id, count(*) AS n FROM {WINDOW} GROUP BY meter_id, window_start"),
        code::EVENT_TIME_COLUMN,
        WINDOW,
    );
    check(TABLE, "SELECT ts, u_a_v AS _v FROM meter_readings", code::OUTPUT_NAME, "u_a_v AS _v");
    check(TABLE, "SELECT ts, u_a_v + 1 FROM meter_readings", code::OUTPUT_NAME, "u_a_v + 1");
    check(TABLE, "SELECT ts, NULL AS nothing FROM meter_readings", code::OUTPUT_TYPE, "NULL AS nothing");
    check(
        TABLE,
        "SELECT ts, CAST(ts AS TIMESTAMP) AS naive FROM meter_readings",
        code::OUTPUT_TYPE,
        "CAST(ts AS TIMESTAMP) AS naive",
    );
}

#[test]
fn versions_need_a_time() {
    check(
        TABLE,
        "SELECT r.ts FROM meter_readings r JOIN (SELECT meter_id FROM installations) i ON i.meter_id = r.meter_id",
        code::AS_OF,
        "(SELECT meter_id FROM installations) i",
    );
    check(
        TABLE,
        "SELECT i.ct_ratio FROM (SELECT meter_id FROM meter_readings) r JOIN installations i ON i.meter_id = r.meter_id",
        code::AS_OF,
        "installations i",
    );
    let own = "SELECT r.ts, i.ct_ratio FROM meter_readings r JOIN installations i ON i.meter_id = r.meter_id AND i.valid_to IS NULL";
    assert_eq!(mistakes(&[rule("r", TABLE, own)]), []);
}

#[test]
fn all_mistakes_of_all_files_are_reported_at_once() {
    let files = [
        rule("a", TABLE, "SELECT ts, nope, nada FROM meter_readings ORDER BY ts"),
        rule("b", TABLE, "SELECT ts FROM a"),
        rule("c", "kind = \"alarm\"", "SELECT ts FORM meter_readings"),
        rule("d", TABLE, "SELECT ts FROM e"),
        rule("e", TABLE, "SELECT ts FROM d"),
        rule("f", "kind = \"table\"\ndelay = \"1 s\"", "SELECT ts FROM g"),
        rule("g", "kind = \"table\"\ndelay = \"2 s\"", "SELECT ts FROM meter_readings"),
        rule("meters", TABLE, "SELECT ts FROM meter_readings"),
        rule("h", "kind = \"table\"\nparams = { spare = 1 }", "SELECT ts FROM meter_readings"),
    ];
    let seen: BTreeSet<(String, &str)> = mistakes(&files).iter().map(|m| (m.file.clone(), m.code)).collect();
    let expected = [
        ("a", code::ORDER_BY),
        ("c", code::HEADER_VALUE),
        ("c", code::SQL_SYNTAX),
        ("d", code::CYCLE),
        ("e", code::CYCLE),
        ("f", code::DELAY_CONFLICT),
        ("h", code::PARAM_UNUSED),
        ("meters", code::NAME_TAKEN),
    ];
    let expected: BTreeSet<_> = expected.into_iter().map(|(id, code)| (format!("sql/test/{id}.sql"), code)).collect();
    assert_eq!(seen, expected);
}

#[test]
fn explain_says_what_is_kept_and_when_rows_are_final() {
    let set = compile(&[rule(
        "per_meter",
        TABLE,
        &format!(
            "SELECT meter_id, window_start, window_end, count(*) AS n FROM {WINDOW} GROUP BY meter_id, window_start, window_end"
        ),
    )]);
    let text = explain::explain(&set, "per_meter").expect("known rule");
    for part in [
        "reads      meter_readings",
        "delay      30 seconds",
        "one group per open window and meter_id",
        "a window of 1 minute is final",
    ] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    assert_eq!(set.rules()[0].fingerprint.len(), 32);
    assert_eq!(explain::explain(&set, "nobody"), None);
}

#[test]
fn patterns_without_end_or_sense_are_refused() {
    for (clauses, says) in [
        (
            "PATTERN (a b) DEFINE b AS u_a_v > 1",
            "nothing bounds how long after the first row of a match a row of `b` may come",
        ),
        ("PATTERN (a b+) DEFINE b AS ts <= prev(ts) + INTERVAL '1 hour'", "nothing bounds"),
        ("PATTERN (a+ b) DEFINE b AS ts <= a.ts + INTERVAL '1 hour'", "a row of `a` may come"),
        ("PATTERN (a*) DEFINE a AS u_a_v > 1", "can match without any row"),
        ("PATTERN (^ a) DEFINE a AS u_a_v > 1", "a stream has no last row"),
        ("PATTERN (a) DEFINE c AS u_a_v > 1", "which PATTERN does not have"),
        ("PATTERN (a) DEFINE a AS u_a_v", "not true or false"),
        ("PATTERN (a) DEFINE a AS next(u_a_v) > 1", "rows that have not come yet"),
        (
            "MEASURES last(a.u_a_v + b.u_a_v) AS x PATTERN (a b) DEFINE b AS ts <= first(ts) + INTERVAL '1 hour'",
            "mixes rows of several symbols",
        ),
        ("AFTER MATCH SKIP TO FIRST a PATTERN (a) DEFINE a AS u_a_v > 1", "would find the same match again"),
        (
            "AFTER MATCH SKIP TO LAST b PATTERN (a b? c) DEFINE b AS b.ts <= a.ts + INTERVAL '1 hour', c AS c.ts <= a.ts + INTERVAL '1 hour'",
            "a match need not have a row of it behind its first row",
        ),
        (
            "AFTER MATCH SKIP TO LAST a PATTERN (a+ b) DEFINE a AS a.ts <= first(ts) + INTERVAL '1 hour', b AS b.ts <= first(ts) + INTERVAL '1 hour'",
            "a match need not have a row of it behind its first row",
        ),
    ] {
        let sql =
            format!("SELECT ts FROM meter_readings MATCH_RECOGNIZE (PARTITION BY meter_id ORDER BY ts {clauses})");
        let mistakes = mistakes(&[rule("r", TABLE, &sql)]);
        assert!(
            mistakes.iter().any(|mistake| mistake.code == code::PATTERN && mistake.message.contains(says)),
            "{clauses}: {mistakes:#?}"
        );
        assert!(mistakes.iter().all(|mistake| mistake.help.is_some() && mistake.span.is_some()), "{mistakes:#?}");
    }
    let unordered =
        "SELECT seq_no FROM meter_readings MATCH_RECOGNIZE (ORDER BY seq_no PATTERN (a) DEFINE a AS u_a_v > 1)";
    assert_eq!(mistakes(&[rule("r", TABLE, unordered)]).len(), 1);
}

#[test]
fn refusals_name_the_reason() {
    let windows = "(SELECT meter_id, window_start, window_end, max(u_a_v) AS top FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute') GROUP BY 1, 2, 3)";
    for (sql, says) in [
        (
            "SELECT ts, lag(u_a_v, 2) IGNORE NULLS OVER (PARTITION BY meter_id ORDER BY ts) AS x FROM meter_readings"
                .to_owned(),
            "ignores NULLs may look back",
        ),
        (
            format!("SELECT extract(hour FROM window_start) AS hour, max(top) AS top FROM {windows} GROUP BY 1"),
            "computed from a time window, and not the window itself",
        ),
        (
            "SELECT ts FROM meter_readings WHERE u_a_v > (SELECT avg(u_a_v) FROM meter_readings)".to_owned(),
            "a subquery as a value",
        ),
        (
            "SELECT ts, sum(u_a_v) OVER (v ROWS 1 PRECEDING) AS s FROM meter_readings WINDOW w AS (ORDER BY ts)".to_owned(),
            "window v is not defined",
        ),
        (
            "SELECT ts, meter_id IN (SELECT meter_id FROM meters) AS is_known FROM meter_readings".to_owned(),
            "stand in WHERE",
        ),
        (
            "SELECT ts FROM meter_readings r LEFT JOIN meters m ON EXISTS (SELECT 1 FROM meters n WHERE n.un_v = r.u_a_v)"
                .to_owned(),
            "does not see `r.u_a_v`",
        ),
        (
            "SELECT b.ts FROM meter_readings a JOIN meter_readings b ON b.ts - a.ts < 200000 * INTERVAL '1 year'".to_owned(),
            "months, which have no one length",
        ),
        (
            "SELECT b.ts FROM meter_readings a JOIN meter_readings b ON b.ts - a.ts < INTERVAL '1 month'".to_owned(),
            "months, which have no one length",
        ),
    ] {
        let mistakes = mistakes(&[rule("r", TABLE, &sql)]);
        assert!(mistakes.iter().any(|mistake| mistake.message.contains(says)), "{sql}: {mistakes:#?}");
    }
}

#[test]
fn an_aggregate_without_distinct_is_refused_before_the_first_event() {
    let sql = format!("SELECT window_end, rms_mean(DISTINCT u_a_v) AS x FROM {WINDOW} GROUP BY window_end");
    let mistakes = mistakes(&[rule("r", TABLE, &sql)]);
    assert!(mistakes.iter().any(|mistake| mistake.message.contains("it takes every value")), "{mistakes:#?}");
}

#[test]
fn what_a_window_function_does_not_take_is_refused_before_the_first_event() {
    let rows = [
        ("PARTITION BY meter_id ORDER BY ts ROWS 3 PRECEDING", "meter_readings"),
        ("PARTITION BY meter_id ORDER BY ts RANGE INTERVAL '1 minute' PRECEDING", "meter_readings"),
        ("PARTITION BY window_end", WINDOW),
    ];
    for (call, says) in [
        ("rms_mean(DISTINCT u_a_v)", "it takes every value"),
        ("gb_percentile_95(DISTINCT u_a_v)", "it takes every value"),
        ("percentile_cont(u_a_v, 95)", "the share of `percentile_cont` is 95"),
    ] {
        for (over, from) in rows {
            let sql = format!("SELECT ts, {call} OVER ({over}) AS x FROM {from}");
            check(TABLE, &sql, code::PLANNING, call);
            let found = mistakes(&[rule("r", TABLE, &sql)]);
            assert!(found.iter().any(|mistake| mistake.message.contains(says) && mistake.help.is_some()), "{found:#?}");
        }
    }
}
