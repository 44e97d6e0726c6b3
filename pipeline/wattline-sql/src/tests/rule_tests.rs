//! `.test.toml` files: what passes, what fails, and how the difference reads.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Decimal128Array, DictionaryArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use serde_json::Value;

use super::fleet::{catalog, compile, rule, stream_schema};
use crate::test_file::TestFile;
use crate::{RuleFile, run_rule_test};

const RULE: &str = "SELECT r.meter_id, window_start, window_end, round(avg(r.u_a_v), 3) AS mean_v, count(*) AS n,\n\
     avg(r.u_a_v) > max(m.un_v) * 1.07 AS firing\n\
     FROM TUMBLE(meter_readings, ts, INTERVAL '10 minutes') r JOIN meters m ON m.meter_id = r.meter_id\n\
     GROUP BY r.meter_id, window_start, window_end";

const TESTS: &str = r#"
[[test]]
name = "means per window"
expect = [
  { meter_id = "M1", window_start = "2026-03-02T00:00:00Z", mean_v = 221.5, n = 2, firing = false },
  { meter_id = "M1", window_end = "2026-03-02T08:20:00+08:00", mean_v = 240.0, firing = true },
]
[test.given]
meter_readings = [
  { meter_id = "M1", ts = "2026-03-02T00:00:00Z", u_a_v = 221 },
  { meter_id = "M1", ts = "2026-03-02T00:09:59Z", u_a_v = 222.0 },
  { meter_id = "M1", ts = "2026-03-02T00:10:00Z", u_a_v = 240.0 },
]

[[test]]
name = "another reference, rows as text"
expect = [{ meter_id = "M7", n = 1, firing = true, mean_v = 120.00 }]
alerts = [{ entity = "M7", status = "open" }]
[test.given]
meter_readings = """
meter_id,ts,u_a_v
M7,2026-03-02T00:00:00Z,120
M1,2026-03-02T00:00:00Z,999"""
[test.reference]
meters = """
meter_id,un_v
M7,100"""

[[test]]
name = "late beyond the delay of 30 seconds, as written"
arrival = "as_given"
expect = [{ meter_id = "M1", n = 1, mean_v = 230.0, window_start = "2026-03-02T00:10:00Z" }]
[test.given]
meter_readings = [
  { meter_id = "M1", ts = "2026-03-02T00:10:00Z", u_a_v = 230.0 },
  { meter_id = "M1", ts = "2026-03-02T00:00:00Z", u_a_v = 221.0 },
]

[[test]]
name = "wrong on purpose"
expect = [{ meter_id = "M1", mean_v = 221.4 }]
[test.given]
meter_readings = '{"meter_id": "M1", "ts": "2026-03-02T00:00:00Z", "u_a_v": 221.5}'
"#;

/// A stand-in for the decoder: JSON rows of one lane to a stream batch.
fn decode(_stream: &str, rows: &[Value]) -> Result<RecordBatch, String> {
    let text = |row: &Value, name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
    let ids: Vec<String> =
        rows.iter().map(|row| text(row, "meter_id").ok_or("no meter_id")).collect::<Result<_, _>>()?;
    let times: ArrayRef = Arc::new(StringArray::from(rows.iter().map(|row| text(row, "ts")).collect::<Vec<_>>()));
    let times = arrow::compute::cast(&times, &crate::catalog::event_time_type()).map_err(|error| error.to_string())?;
    let mut highest_us = i64::MIN;
    let instants = times.as_primitive::<TimestampMicrosecondType>().values().iter();
    let lateness: Int64Array = instants
        .map(|&time_us| {
            highest_us = highest_us.max(time_us);
            (highest_us - time_us) / 1_000
        })
        .collect();
    let volts: Vec<Option<f64>> = rows.iter().map(|row| row.get("u_a_v").and_then(Value::as_f64)).collect();
    let count = rows.len();
    let topic: DictionaryArray<Int32Type> = std::iter::repeat_n("given", count).collect();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(ids)),
        times,
        Arc::new(Float64Array::from(volts)),
        Arc::new(Decimal128Array::from(vec![None::<i128>; count]).with_precision_and_scale(18, 4).expect("fits")),
        Arc::new(Int64Array::from(vec![None::<i64>; count])),
        Arc::new(topic),
        Arc::new(Int32Array::from(vec![0; count])),
        Arc::new(Int64Array::from_iter_values(0..i64::try_from(count).expect("small"))),
        Arc::new(Int32Array::from(vec![0; count])),
        Arc::new(lateness),
    ];
    RecordBatch::try_new(stream_schema(), columns).map_err(|error| error.to_string())
}

fn files() -> Vec<RuleFile> {
    vec![rule("mean_voltage", "kind = \"alert\"\nentity = \"meter_id\"", RULE)]
}

#[test]
fn cases_pass_fail_and_show_the_difference() {
    let files = files();
    let set = compile(&files);
    let tests = TestFile::parse("mean_voltage.test.toml", TESTS, &catalog()).expect("valid");
    let outcomes: Vec<_> = tests
        .cases
        .iter()
        .map(|case| run_rule_test(&set, &files, "mean_voltage", case, &decode).expect("runs"))
        .collect();
    assert_eq!(outcomes[0].failures, Vec::<String>::new());
    assert_eq!(outcomes[1].failures, Vec::<String>::new());
    assert_eq!(outcomes[1].rows.iter().map(|rows| rows.batch.num_rows()).sum::<usize>(), 1);
    assert_eq!(outcomes[2].failures, Vec::<String>::new());
    assert_eq!(tests.cases[1].alerts.as_ref().map(Vec::len), Some(1));
    assert_eq!(outcomes[3].failures.len(), 1, "what all runs agree on is told once: {:?}", outcomes[3].failures);
    let told = &outcomes[3].failures[0];
    assert!(told.starts_with("batch and stream:\n  - meter_id=M1 mean_v=221.4\n  + meter_id=M1 "), "{told}");
}

#[test]
fn a_case_expects_what_it_shows() {
    let case = |rest: &str| TestFile::parse("x.test.toml", &format!("[[test]]\nname = \"x\"\n{rest}\n"), &catalog());
    let right = [
        "shows = [\"firing\", \"boundary\"]\nalerts = [{ status = \"open\" }]",
        "shows = [\"firing\"]\nexpect = [{ meter_id = \"M1\" }]",
        "shows = [\"resolved\", \"quiet\", \"missing\"]\nalerts = [{ status = \"open\" }, { status = \"resolved\" }]",
        "shows = [\"late\"]\narrival = \"as_given\"",
    ];
    for text in right {
        assert!(case(text).is_ok_and(|file| !file.cases[0].shows.is_empty()), "{text}");
    }
    let wrong = [
        "shows = [\"firing\"]\nalerts = []",
        "shows = [\"resolved\"]\nalerts = [{ status = \"open\" }]",
        "shows = [\"late\"]",
        "shows = [\"sometimes\"]",
        "shows = \"firing\"",
    ];
    for text in wrong {
        assert_eq!(case(text).expect_err(text).len(), 1, "{text}");
    }
}

#[test]
fn mistakes_in_test_files_are_placed() {
    let text =
        "[[test]]\nname = \"x\"\nexpct = []\n[test.given]\nmeter_reading = []\n[test.reference]\nmeter = \"a\"\n";
    let mistakes = TestFile::parse("x.test.toml", text, &catalog()).expect_err("three mistakes");
    let seen: Vec<&str> = mistakes.iter().map(|m| &text[m.span.clone().expect("placed")]).collect();
    assert_eq!(seen.len(), 3, "{mistakes:#?}");
    for place in ["expct", "meter_reading", "meter"] {
        assert!(seen.contains(&place), "{seen:?}");
    }
}
