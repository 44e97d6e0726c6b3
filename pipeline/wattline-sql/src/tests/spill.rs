//! State that memory does not hold: what is on disk, when and in what parts it comes back, and what becomes of it if the disk is full.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use wattline_core::error::{Kind, Retry};
use wattline_core::time::END_OF_TIME;

use super::fleet::{Lcg, compile, lane, rule};
use super::shapes::PATIENT;
use crate::operators::{RUNS_MAX, TestDisk};
use crate::test_run::text_rows;
use crate::{Error, FinalProgram, RuleSet};

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
    assert_eq!((error.kind(), error.retry()), (Kind::Unavailable, Retry::Backoff));
    let (held, again) = (program.state_rows(), program.relieve().expect_err("it is still not there"));
    assert!(held > 0 && again.to_string() == error.to_string(), "{again}");
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

/// Calls again while the disk is full.
fn patiently<T>(mut call: impl FnMut() -> Result<T, Error>) -> T {
    loop {
        match call() {
            Ok(done) => return done,
            Err(error) => assert_eq!(error.retry(), Retry::Backoff, "{error}"),
        }
    }
}

/// Rules of every kind of state that can go to disk: windows, panes of windows that overlap, rows in order, and stages of all sorts.
fn rules_of_every_kind() -> RuleSet {
    let grouped = |windows: &str| {
        format!(
            "SELECT meter_id, window_start, window_end, count(*) AS n, max(ts) AS last\n\
             FROM {windows} GROUP BY meter_id, window_start, window_end"
        )
    };
    compile(&[
        rule("tumble", PATIENT, &grouped("TUMBLE(meter_readings, ts, INTERVAL '2 minutes')")),
        rule("hop", PATIENT, &grouped("HOP(meter_readings, ts, INTERVAL '1 minute', INTERVAL '30 minutes')")),
        rule("cumulate", PATIENT, &grouped("CUMULATE(meter_readings, ts, INTERVAL '1 minute', INTERVAL '30 minutes')")),
        rule("sessions", PATIENT, &grouped("SESSION(meter_readings, ts, INTERVAL '10 seconds', meter_id)")),
        rule(
            "over_windows",
            PATIENT,
            "SELECT meter_id, window_start, window_end, sum(n) AS n FROM HOP(\n\
             (SELECT meter_id, window_start AS at, count(*) AS n FROM TUMBLE(meter_readings, ts, INTERVAL '1 minute')\n\
             GROUP BY meter_id, window_start), at, INTERVAL '1 minute', INTERVAL '5 minutes')\n\
             GROUP BY meter_id, window_start, window_end",
        ),
        rule(
            "pauses",
            PATIENT,
            "SELECT meter_id, ts, lag(ts) OVER (PARTITION BY meter_id ORDER BY ts) AS before FROM meter_readings",
        ),
        rule(
            "high",
            "kind = \"alert\"\nentity = \"meter_id\"\ndelay = \"1 day\"",
            "SELECT meter_id, ts, u_a_v AS measured, coalesce(u_a_v > 235.4, false) AS firing FROM meter_readings",
        ),
    ])
}

/// What the rules give, watermark by watermark; half-way all state goes through a snapshot into another program.
fn given_by(set: &RuleSet, rows: &RecordBatch, program: &dyn Fn() -> FinalProgram) -> Vec<Vec<String>> {
    let times = rows.column(1).as_primitive::<TimestampMicrosecondType>().values();
    let states = set.states().len();
    let mut current = program();
    let mut given = Vec::new();
    let steps: Vec<usize> = (0..rows.num_rows()).step_by(150).collect();
    for (step, from) in steps.iter().enumerate() {
        let mut worker = set.lane_program();
        let part = rows.slice(*from, 150.min(rows.num_rows() - from));
        assert_eq!(worker.push(0, "meter_readings", &part).errors, []);
        for delta in worker.seal().expect("seals") {
            current.merge(&delta).expect("merges");
            patiently(|| current.relieve());
        }
        let last = step + 1 == steps.len();
        let watermark_us = if last { END_OF_TIME } else { times[*from] - 180_000_000 };
        let mut of_watermark = Vec::new();
        loop {
            let output = patiently(|| current.advance(&vec![watermark_us; states]));
            assert_eq!(output.stopped, []);
            let named = |rows: &crate::RuleRows| -> Vec<String> {
                text_rows(&rows.batch)
                    .expect("printable")
                    .into_iter()
                    .map(|row| format!("{} {row}", rows.rule))
                    .collect()
            };
            of_watermark.extend(output.rows.iter().flat_map(named));
            if !output.more {
                break;
            }
            patiently(|| current.relieve());
        }
        of_watermark.sort();
        given.push(of_watermark);
        if step == steps.len() / 2 {
            let mut next = program();
            (0..states).for_each(|state| next.set_given(state, watermark_us));
            for stage in current.dump_stages().expect("dumps") {
                next.restore_stage(&stage.expect("reads")).expect("restores");
                patiently(|| next.relieve());
            }
            let taken_us: Vec<i64> = (0..states).map(|state| current.taken_us(state)).collect();
            for delta in current.dump().expect("dumps") {
                let delta = delta.expect("reads");
                if delta.final_at_us > taken_us[delta.state] {
                    next.restore(&delta).expect("restores");
                    patiently(|| next.relieve());
                }
            }
            current = next;
        }
    }
    given
}

#[test]
fn a_disk_that_is_full_for_a_while_changes_nothing() {
    let set = rules_of_every_kind();
    let rows = lane(0, 1_200, &mut Lcg(11));
    let expected = given_by(&set, &rows, &|| set.final_program());
    assert!(expected.iter().filter(|rows| !rows.is_empty()).count() > 4, "it becomes final bit by bit");
    let on = |bytes: usize, refused: (usize, usize)| {
        let disk = Arc::new(TestDisk { refused, ..TestDisk::default() });
        let given = given_by(&set, &rows, &|| set.final_program().with_disk(bytes, Arc::clone(&disk)));
        (given, disk.writes.load(Ordering::SeqCst))
    };
    for bytes in [0, 200 << 10] {
        let (given, writes) = on(bytes, (0, 0));
        assert_eq!(given, expected, "{bytes} bytes of memory");
        assert!(writes > 20, "only {writes} writes with {bytes} bytes of memory");
        let (every, longest) = (writes / 6 + 1, writes / 3 + 2);
        for first in (0..writes).step_by(every) {
            for count in [1, 7, longest] {
                let (given, _) = on(bytes, (first, count));
                assert_eq!(given, expected, "{bytes} bytes of memory, full for {count} writes from {first} on");
            }
        }
    }
}
