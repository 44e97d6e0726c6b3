//! Row patterns: answers known beforehand, for what the comparison of stream and batch cannot see since both search alike.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch};
use arrow::array::{StringArray, TimestampMicrosecondArray};
use arrow::datatypes::Int32Type;

use super::fleet::{MIDNIGHT_US, compile, rule, stream_schema};
use super::shapes::TABLE;
use crate::oracle;
use crate::test_run::text_rows;

/// One reading a minute of one meter.
fn minutes(volts: &[f64]) -> RecordBatch {
    let rows = volts.len();
    let topic: DictionaryArray<Int32Type> = std::iter::repeat_n("meter-readings", rows).collect();
    let number = |at: usize| i64::try_from(at).expect("small");
    let times = (0..rows).map(|at| MIDNIGHT_US + number(at) * 60_000_000).collect::<Vec<_>>();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["M0"; rows])),
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        Arc::new(Float64Array::from(volts.to_vec())),
        Arc::new(Decimal128Array::from(vec![0; rows]).with_precision_and_scale(18, 4).expect("fits")),
        Arc::new(Int64Array::from_iter_values((0..rows).map(number))),
        Arc::new(topic),
        Arc::new(Int32Array::from(vec![0; rows])),
        Arc::new(Int64Array::from_iter_values((0..rows).map(number))),
        Arc::new(Int32Array::from(vec![0; rows])),
        Arc::new(Int64Array::from(vec![0; rows])),
    ];
    RecordBatch::try_new(stream_schema(), columns).expect("valid batch")
}

/// The values of the rows, each without its name.
fn answer(volts: &[f64], select: &str, clauses: &str) -> Vec<String> {
    let sql =
        format!("SELECT {select} FROM meter_readings MATCH_RECOGNIZE (PARTITION BY meter_id ORDER BY ts {clauses})");
    let set = compile(&[rule("r", TABLE, &sql)]);
    let streams = BTreeMap::from([("meter_readings".to_owned(), vec![minutes(volts)])]);
    let rows = oracle::run_rule_blocking(&set, "r", &streams).expect("batch run");
    let values = |row: String| {
        row.split(' ').map(|part| part.split('=').nth(1).unwrap_or("").to_owned()).skip(1).collect::<Vec<_>>().join(" ")
    };
    text_rows(&rows).expect("printable").into_iter().map(values).collect()
}

/// The twenty days of a share that the literature on this clause explains it with.
const SHARE: [f64; 20] =
    [12., 17., 19., 21., 25., 12., 15., 20., 24., 25., 19., 15., 25., 25., 14., 12., 14., 24., 23., 22.];
const FALL_AND_RISE: &str = "PATTERN (strt down+ up+) DEFINE down AS down.u_a_v < prev(down.u_a_v) AND ts <= first(ts) + INTERVAL '1 day', \
     up AS up.u_a_v > prev(up.u_a_v) AND ts <= first(ts) + INTERVAL '1 day'";
const EDGES: &str = "MEASURES first(ts) AS ts, strt.seq_no AS b, last(down.seq_no) AS m, last(up.seq_no) AS e";

#[test]
fn falls_and_rises_of_a_share_are_the_known_ones() {
    let edges =
        |skip: &str| answer(&SHARE, "ts, b, m, e", &format!("{EDGES} ONE ROW PER MATCH {skip} {FALL_AND_RISE}"));
    assert_eq!(edges("AFTER MATCH SKIP TO LAST up"), ["4 5 9", "9 11 12", "13 15 17"]);
    assert_eq!(edges("AFTER MATCH SKIP PAST LAST ROW"), ["4 5 9", "10 11 12", "13 15 17"]);
    assert_eq!(edges(""), edges("AFTER MATCH SKIP PAST LAST ROW"));
    let overlapping = ["4 5 9", "9 11 12", "10 11 12", "13 15 17", "14 15 17"];
    assert_eq!(edges("AFTER MATCH SKIP TO NEXT ROW"), overlapping);
}

#[test]
fn all_rows_have_measures_as_of_the_row() {
    let clauses = "MEASURES match_number() AS number, classifier() AS part, count(*) AS n, min(down.u_a_v) AS low, first(u_a_v, 1) AS second \
         ALL ROWS PER MATCH PATTERN (STRT down+ up) DEFINE down AS u_a_v < prev(u_a_v) AND ts <= first(ts) + INTERVAL '1 hour', \
         up AS u_a_v > down.u_a_v AND ts <= first(ts) + INTERVAL '1 hour'";
    let rows = answer(&[5., 4., 3., 6., 9., 8., 10.], "ts, seq_no, number, part, n, low, second", clauses);
    assert_eq!(
        rows,
        [
            "0 1 STRT 1 null null",
            "1 1 down 2 4.00000000e0 4.00000000e0",
            "2 1 down 3 3.00000000e0 4.00000000e0",
            "3 1 up 4 3.00000000e0 4.00000000e0",
            "4 2 STRT 1 null null",
            "5 2 down 2 8.00000000e0 8.00000000e0",
            "6 2 up 3 8.00000000e0 8.00000000e0",
        ]
    );
}

#[test]
fn the_bound_includes_its_end_and_unmatched_rows_can_be_shown() {
    let clauses = |bound: &str| {
        format!(
            "MEASURES classifier() AS part ALL ROWS PER MATCH WITH UNMATCHED ROWS PATTERN (ask other*? done) \
             DEFINE ask AS u_a_v = 1, other AS u_a_v = 0 AND ts <= ask.ts + INTERVAL '1 day', done AS u_a_v = 2 AND done.ts - ask.ts <= INTERVAL '{bound}'"
        )
    };
    let volts = [1., 0., 0., 2., 0.];
    let parts = |bound: &str| answer(&volts, "ts, part", &clauses(bound));
    assert_eq!(parts("3 minutes"), ["ask", "other", "other", "done", "null"]);
    assert_eq!(parts("179 seconds"), ["null"; 5]);
}

#[test]
fn what_is_preferred_is_found_first() {
    let lengths = |pattern: &str| {
        let symbols = [("a", "u_a_v > 0"), ("b", "u_a_v > 1"), ("c", "true")];
        let used = symbols.iter().filter(|(symbol, _)| pattern.contains(symbol));
        let define = |(symbol, is): &(&str, &str)| format!("{symbol} AS {is} AND ts <= first(ts) + INTERVAL '1 day'");
        let clauses = format!(
            "MEASURES first(ts) AS ts, count(*) AS n, classifier() AS last PATTERN ({pattern}) DEFINE {}",
            used.map(define).collect::<Vec<_>>().join(", ")
        );
        answer(&[1., 2., 2., 0., 2.], "ts, n, last", &clauses)
    };
    assert_eq!(lengths("a+"), ["3 a", "1 a"]);
    assert_eq!(lengths("a+?"), ["1 a"; 4]);
    assert_eq!(lengths("a+ b"), ["3 b"]);
    assert_eq!(lengths("a+? b"), ["2 b"]);
    assert_eq!(lengths("b | a"), ["1 a", "1 b", "1 b", "1 b"]);
    assert_eq!(lengths("a{2}"), ["2 a"]);
    assert_eq!(lengths("a{,2} c"), ["3 c", "1 c", "1 c"]);
    assert_eq!(lengths("a{1,2}? c?? b"), ["2 b", "3 b"]);
    assert_eq!(lengths("(a b)+ c"), ["3 c"]);
    assert_eq!(lengths("PERMUTE(b, c)"), ["2 b", "2 c"]);
}

#[test]
fn a_search_goes_no_way_twice_unless_its_conditions_depend_on_the_way() {
    let volts = [1.0; 60];
    let search = |b: &str| {
        let clauses = format!(
            "MEASURES first(ts) AS ts PATTERN ((a | b)+ c) DEFINE a AS ts <= first(ts) + INTERVAL '1 day', \
             b AS {b} AND ts <= first(ts) + INTERVAL '1 day', c AS u_a_v > 9 AND ts <= first(ts) + INTERVAL '1 day'"
        );
        let sql =
            format!("SELECT ts FROM meter_readings MATCH_RECOGNIZE (PARTITION BY meter_id ORDER BY ts {clauses})");
        let set = compile(&[rule("r", TABLE, &sql)]);
        let streams = BTreeMap::from([("meter_readings".to_owned(), vec![minutes(&volts)])]);
        oracle::run_rule_blocking(&set, "r", &streams).map(|rows| rows.num_rows()).map_err(|error| error.to_string())
    };
    assert_eq!(search("count(*) < 100 AND b.seq_no >= first(seq_no)"), Ok(0));
    let endless = search("count(a.*) < 100").expect_err("2^60 ways");
    assert!(endless.contains("make its DEFINE more selective"), "{endless}");
}
