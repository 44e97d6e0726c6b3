//! State that memory does not hold: what is on disk, when and in what parts it comes back, and what is said if the disk fails.

use std::collections::BTreeSet;
use std::path::Path;

use arrow::array::AsArray;
use arrow::datatypes::TimestampMicrosecondType;
use wattline_core::error::{Kind, Retry};
use wattline_core::time::END_OF_TIME;

use super::fleet::{Lcg, compile, lane, rule};
use super::shapes::PATIENT;
use crate::operators::RUNS_MAX;
use crate::test_run::text_rows;
use crate::{FinalProgram, RuleSet};

const MEMORY_BYTES: usize = 100 << 10;

fn rules() -> RuleSet {
    let sql = "SELECT meter_id, ts AS at, window_start, window_end, count(*) AS n\n\
               FROM TUMBLE(meter_readings, ts, INTERVAL '1 day') GROUP BY meter_id, ts, window_start, window_end";
    compile(&[rule("each", "kind = \"table\"\ndelay = \"1 day\"", sql)])
}

/// A program that was given the same lane three times.
fn filled(set: &RuleSet, mut program: FinalProgram) -> FinalProgram {
    for _ in 0..3 {
        let mut worker = set.lane_program();
        assert_eq!(worker.push(0, "meter_readings", &lane(0, 4_000, &mut Lcg(5))).errors, []);
        for delta in worker.seal().expect("seals") {
            program.merge(&delta).expect("merges");
            program.relieve().expect("spills");
        }
    }
    program
}

/// The rows of each call, as text.
fn parts(set: &RuleSet, program: &mut FinalProgram) -> Vec<Vec<String>> {
    let mut parts = Vec::new();
    loop {
        let output = program.advance(&vec![END_OF_TIME; set.states().len()]).expect("advances");
        assert_eq!(output.stopped, []);
        parts.extend(output.rows.iter().map(|rows| text_rows(&rows.batch).expect("printable")));
        if !output.more {
            return parts;
        }
    }
}

#[test]
fn a_window_that_memory_does_not_hold_comes_back_in_parts_and_in_order() {
    let set = rules();
    let mut small = filled(&set, set.final_program().with_memory(MEMORY_BYTES, &std::env::temp_dir()));
    let mut large = filled(&set, set.final_program());
    assert!(large.state_bytes() > 2 * MEMORY_BYTES, "{} bytes would be held anyway", large.state_bytes());
    assert!(small.state_bytes() <= MEMORY_BYTES, "{} bytes are held", small.state_bytes());
    let dumped = |program: &mut FinalProgram| {
        let dump = program.dump().expect("dumps").map(|delta| delta.expect("reads").batch.num_rows());
        dump.sum::<usize>()
    };
    assert_eq!(dumped(&mut small), 3 * dumped(&mut large), "each group is in three runs");

    let (small, large) = (parts(&set, &mut small), parts(&set, &mut large));
    assert_eq!(large.len(), 1);
    assert!(small.len() > 20, "{} parts", small.len());
    assert_eq!(small.concat(), large[0]);
    let distinct: BTreeSet<&String> = large[0].iter().collect();
    assert!(distinct.len() > 3_000);
}

#[test]
fn a_disk_that_fails_is_named() {
    let set = rules();
    let mut program = set.final_program().with_memory(0, Path::new("/no/such/folder"));
    let mut worker = set.lane_program();
    assert_eq!(worker.push(0, "meter_readings", &lane(0, 10, &mut Lcg(5))).errors, []);
    program.merge(&worker.seal().expect("seals")[0]).expect("merges");
    let error = program.relieve().expect_err("there is no such folder");
    assert_eq!((error.kind(), error.retry()), (Kind::Unavailable, Retry::AfterRestore));
    let message = error.to_string();
    assert!(message.contains("/no/such/folder") && message.contains("[run] scratch"), "{message}");
}

#[test]
fn what_lies_on_disk_is_given_when_it_is_due_though_nothing_comes() {
    let sql = "SELECT meter_id, window_start, window_end, count(*) AS n\n\
               FROM SESSION(meter_readings, ts, INTERVAL '10 minutes', meter_id) GROUP BY meter_id, window_start, window_end";
    let hop = "SELECT meter_id, window_start, window_end, sum(n) AS n FROM HOP(\n\
               (SELECT meter_id, window_start AS at, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute')\n\
                GROUP BY meter_id, window_start), at, INTERVAL '1 minute', INTERVAL '10 minutes') GROUP BY meter_id, window_start, window_end";
    let set = compile(&[rule("sessions", PATIENT, sql), rule("hop", PATIENT, hop)]);
    let rows = lane(0, 40, &mut Lcg(5));
    let last_us =
        rows.column(1).as_primitive::<TimestampMicrosecondType>().values().iter().copied().max().expect("rows");
    let given = |memory: Option<usize>| {
        let mut program = set.final_program();
        if let Some(bytes) = memory {
            program = program.with_memory(bytes, &std::env::temp_dir());
        }
        let mut worker = set.lane_program();
        assert_eq!(worker.push(0, "meter_readings", &rows).errors, []);
        worker.seal().expect("seals").iter().for_each(|delta| program.merge(delta).expect("merges"));
        program.relieve().expect("spills");
        let mut by_watermark = Vec::new();
        for minutes in (0..30).map(|minutes: i64| minutes * 60_000_000) {
            let mut of_watermark = Vec::new();
            loop {
                let output = program.advance(&vec![last_us + 1 + minutes; set.states().len()]).expect("advances");
                of_watermark.extend(output.rows.iter().flat_map(|rows| text_rows(&rows.batch).expect("printable")));
                program.relieve().expect("spills");
                if !output.more {
                    break;
                }
            }
            of_watermark.sort();
            by_watermark.push(of_watermark);
        }
        by_watermark
    };
    let expected = given(None);
    assert!(expected.iter().filter(|rows| !rows.is_empty()).count() > 8, "it becomes due bit by bit");
    assert_eq!(given(Some(0)), expected);
}

/// Windows of more panes than may be open at once, each pane in several runs.
#[test]
fn windows_of_many_panes_on_disk_are_whole() {
    let over = |id: &str, windows: &str| {
        let sql = format!(
            "SELECT meter_id, window_start, window_end, count(*) AS n, max(ts) AS last\n\
             FROM {windows} GROUP BY meter_id, window_start, window_end"
        );
        rule(id, "kind = \"table\"\ndelay = \"1 day\"", &sql)
    };
    let set = compile(&[
        over("hop", "HOP(meter_readings, ts, INTERVAL '1 minute', INTERVAL '2 hours')"),
        over("cumulate", "CUMULATE(meter_readings, ts, INTERVAL '1 minute', INTERVAL '2 hours')"),
    ]);
    let rows = lane(0, 2_000, &mut Lcg(5));
    let times = rows.column(1).as_primitive::<TimestampMicrosecondType>().values();
    let minutes: BTreeSet<i64> = times.iter().map(|us| us.div_euclid(60_000_000)).collect();
    assert!(minutes.len() > 2 * RUNS_MAX, "{} panes", minutes.len());
    let given = |memory: Option<usize>| {
        let mut program = set.final_program();
        if let Some(bytes) = memory {
            program = program.with_memory(bytes, &std::env::temp_dir());
        }
        for from in (0..rows.num_rows()).step_by(500) {
            let mut worker = set.lane_program();
            assert_eq!(worker.push(0, "meter_readings", &rows.slice(from, 500)).errors, []);
            worker.seal().expect("seals").iter().for_each(|delta| program.merge(delta).expect("merges"));
            program.relieve().expect("spills");
        }
        let mut rows: Vec<String> = parts(&set, &mut program).concat();
        rows.sort();
        rows
    };
    let expected = given(None);
    assert!(expected.len() > 1_000, "{} windows", expected.len());
    assert_eq!(given(Some(0)), expected);
}
