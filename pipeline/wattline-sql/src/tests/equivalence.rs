//! Law: what the streaming engine has given out at the end equals plain DataFusion over the same events,
//! for any batch size, number of workers, tick and restore; and nothing is given out before it is final.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use super::fleet::{Lcg, compile, lane, rule};
use crate::test_run::text_rows;
use crate::{RuleFile, RuleSet, StateDelta, oracle};

const TABLE: &str = "kind = \"table\"";
const PATIENT: &str = "kind = \"table\"\ndelay = \"1 day\"";
const ALERT: &str = "kind = \"alert\"\nentity = \"meter_id\"";

fn shapes() -> Vec<RuleFile> {
    let mut shapes = vec![
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
    ];
    shapes.extend(windows());
    shapes
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

struct Cut {
    workers: usize,
    batch_max: u64,
    restore: bool,
}

#[test]
fn stream_equals_batch_for_every_shape_and_cut() {
    let set = compile(&shapes());
    let cuts = [
        Cut { workers: 1, batch_max: 1, restore: false },
        Cut { workers: 2, batch_max: 9, restore: true },
        Cut { workers: 3, batch_max: 400, restore: false },
    ];
    for seed in 0..4 {
        let mut random = Lcg(seed);
        let lanes: Vec<RecordBatch> = (0..3).map(|partition| lane(partition, 160, &mut random)).collect();
        let streams = BTreeMap::from([("meter_readings".to_owned(), lanes.clone())]);
        let expected: Vec<Vec<String>> = set
            .rules()
            .iter()
            .map(|rule| {
                let batch = oracle::run_rule_blocking(&set, &rule.header.id, &streams).expect("batch run");
                sorted(text_rows(&batch).expect("printable"))
            })
            .collect();
        for cut in &cuts {
            let got = run(&set, &lanes, cut, &mut random);
            for (rule, (got, expected)) in set.rules().iter().zip(got.into_iter().zip(&expected)) {
                assert!(!expected.is_empty(), "rule {} has no rows to compare", rule.header.id);
                assert_eq!(&sorted(got), expected, "rule {} seed {seed} workers {}", rule.header.id, cut.workers);
            }
        }
    }
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

/// Runs all rules over lanes in random order and cuts; returns the rows of each rule as text.
fn run(set: &RuleSet, lanes: &[RecordBatch], cut: &Cut, random: &mut Lcg) -> Vec<Vec<String>> {
    let mut workers: Vec<_> = (0..cut.workers).map(|_| set.lane_program()).collect();
    let mut last = set.final_program();
    let mut rows = vec![Vec::new(); set.rules().len()];
    let mut at = vec![0; lanes.len()];
    let mut reached = vec![BEFORE_TIME; lanes.len()];
    while at.iter().zip(lanes).any(|(&at, lane)| at < lane.num_rows()) {
        let lane = usize::try_from(random.below(lanes.len() as u64)).expect("small");
        let size =
            usize::try_from(1 + random.below(cut.batch_max)).expect("small").min(lanes[lane].num_rows() - at[lane]);
        if size > 0 {
            let batch = lanes[lane].slice(at[lane], size);
            at[lane] += size;
            let output =
                workers[lane % cut.workers].push(u32::try_from(lane).expect("small"), "meter_readings", &batch);
            assert_eq!(output.errors, []);
            for result in output.rows {
                let identity = result.identity.expect("stateless rows know their event");
                assert_eq!(identity.num_rows(), result.batch.num_rows());
                rows[result.rule].extend(text_rows(&result.batch).expect("printable"));
            }
            let times = batch.column(1).as_primitive::<TimestampMicrosecondType>();
            reached[lane] = times.values().iter().copied().fold(reached[lane], i64::max);
        }
        if random.below(3) == 0 {
            let slowest = reached.iter().copied().min().expect("lanes");
            let whole = random.below(2) == 0;
            let watermarks: Vec<i64> = (0..set.states().len()).map(|state| watermark(set, state, slowest)).collect();
            let taken = |worker: &mut crate::LaneProgram| {
                if whole { worker.seal() } else { worker.close(&watermarks) }.expect("gives its state")
            };
            let deltas = workers.iter_mut().flat_map(taken).collect();
            for (state, first) in workers.iter().flat_map(|worker| worker.first_final_us().into_iter().enumerate()) {
                assert!(first > watermarks[state], "nothing that is final stays behind");
            }
            tick(set, &mut last, deltas, slowest, &mut rows);
            if cut.restore && random.below(4) == 0 {
                last = restored(set, &mut last, slowest);
            }
        }
    }
    let deltas = workers.iter_mut().flat_map(|worker| worker.seal().expect("seals")).collect();
    tick(set, &mut last, deltas, END_OF_TIME, &mut rows);
    assert_eq!(last.state_rows(), 0, "nothing is kept at the end of time");
    rows
}

/// The watermark of a state.
fn watermark(set: &RuleSet, state: usize, reached_us: i64) -> i64 {
    let rule = &set.rules()[set.states()[state].rules[0]];
    if reached_us == END_OF_TIME { reached_us } else { reached_us.saturating_sub(rule.delay_ms * 1_000) }
}

fn tick(
    set: &RuleSet,
    last: &mut crate::FinalProgram,
    deltas: Vec<StateDelta>,
    reached_us: i64,
    rows: &mut [Vec<String>],
) {
    for delta in &deltas {
        last.merge(delta).expect("merges");
    }
    for state in 0..set.states().len() {
        let watermark_us = watermark(set, state, reached_us);
        let output = last.advance(state, watermark_us).expect("advances");
        assert_eq!(output.errors, []);
        for result in output.rows {
            let rule = &set.rules()[result.rule];
            let times = result.batch.column(rule.event_time_column).as_primitive::<TimestampMicrosecondType>();
            assert!(times.values().iter().all(|&time| time <= watermark_us), "{} gave rows too early", rule.header.id);
            if rule.ordered {
                assert!(times.values().is_sorted(), "{} is out of order", rule.header.id);
            }
            rows[result.rule].extend(text_rows(&result.batch).expect("printable"));
        }
    }
    for delta in &deltas {
        let before = last.state_rows();
        if delta.final_at_us <= watermark(set, delta.state, reached_us) && delta.final_at_us != END_OF_TIME {
            last.merge(delta).expect("merges");
            assert_eq!(last.state_rows(), before, "state that was final is ignored");
        }
    }
}

fn restored(set: &RuleSet, last: &mut crate::FinalProgram, reached_us: i64) -> crate::FinalProgram {
    let mut fresh = set.final_program();
    for state in 0..set.states().len() {
        fresh.set_watermark(state, watermark(set, state, reached_us));
    }
    let rows = last.state_rows();
    for delta in last.dump().expect("dumps") {
        let halves = [delta.batch.slice(0, delta.batch.num_rows() / 2), {
            let half = delta.batch.num_rows() / 2;
            delta.batch.slice(half, delta.batch.num_rows() - half)
        }];
        for batch in halves.into_iter().filter(|batch| batch.num_rows() > 0) {
            fresh.merge(&StateDelta { batch: through_ipc(&batch), ..delta }).expect("merges");
        }
    }
    assert_eq!(fresh.state_rows(), rows);
    assert_eq!(last.state_rows(), rows, "a dump leaves the state in place");
    fresh
}

fn through_ipc(batch: &RecordBatch) -> RecordBatch {
    let mut bytes = Vec::new();
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut bytes, &batch.schema()).expect("writes");
    writer.write(batch).expect("writes");
    writer.finish().expect("writes");
    drop(writer);
    let reader = arrow::ipc::reader::StreamReader::try_new(&bytes[..], None).expect("reads");
    let batches: Vec<RecordBatch> = reader.map(|batch| batch.expect("reads")).collect();
    concat_batches(&batches[0].schema(), &batches).expect("one schema")
}

#[test]
fn the_failing_row_does_not_depend_on_batches() {
    let set = compile(&[
        rule("fails", PATIENT, "SELECT ts, 100 / (seq_no - 3) AS ratio FROM meter_readings"),
        rule("goes_on", PATIENT, "SELECT ts FROM meter_readings"),
        rule("guarded", PATIENT, "SELECT ts FROM meter_readings WHERE seq_no <> 3 AND 100 / (seq_no - 3) > 0"),
    ]);
    let index = |id| set.rule(id).expect("known").0;
    let rows = lane(4, 120, &mut Lcg(7));
    let seq = rows.column(4).as_primitive::<Int64Type>();
    let first = (0..120).position(|row| seq.iter().nth(row).flatten() == Some(3)).expect("some row fails");
    for size in [1, 7, 120] {
        let mut program = set.lane_program();
        let (mut counts, mut errors) = (vec![0; 3], Vec::new());
        let mut at = 0;
        while at < 120 {
            let len = size.min(120 - at);
            let output = program.push(0, "meter_readings", &rows.slice(at, len));
            for result in output.rows {
                counts[result.rule] += result.batch.num_rows();
            }
            errors.extend(output.errors);
            at += len;
        }
        assert_eq!(counts[index("fails")], first, "size {size}");
        assert_eq!(counts[index("goes_on")], 120, "size {size}");
        let [error] = &errors[..] else { panic!("one failure and not {errors:?}") };
        assert_eq!((error.rule, error.lane, error.partition), (index("fails"), Some(0), Some(4)));
        assert_eq!(error.offset, i64::try_from(first).ok(), "size {size}");
        assert!(error.message.contains("ivide by zero"), "{}", error.message);
    }
}

#[test]
fn late_rows_count_only_within_the_delay() {
    let set = compile(&[
        rule("strict", "kind = \"table\"\ndelay = \"0 s\"", "SELECT ts FROM meter_readings"),
        rule("patient", "kind = \"table\"\ndelay = \"1 day\"", "SELECT ts FROM meter_readings"),
    ]);
    let rows = lane(0, 200, &mut Lcg(3));
    let on_time = rows.column(9).as_primitive::<Int64Type>().values().iter().filter(|&&late| late <= 0).count();
    assert!(on_time < 200);
    let mut program = set.lane_program();
    let mut counts = BTreeMap::new();
    for result in program.push(0, "meter_readings", &rows).rows {
        *counts.entry(set.rules()[result.rule].header.id.clone()).or_insert(0) += result.batch.num_rows();
    }
    assert_eq!(counts, BTreeMap::from([("strict".to_owned(), on_time), ("patient".to_owned(), 200)]));
}

#[tokio::test]
async fn queries_know_the_same_functions() {
    let context = crate::query::query_context();
    context.register_batch("events", lane(0, 50, &mut Lcg(1))).expect("registers");
    let sql = "SELECT window_end, rms_mean(u_a_v) AS rms, count(*) AS n, max(1.1 + 2.2) = 3.3 AS exact\n\
               FROM TUMBLE(events, ts, INTERVAL '1 minute') GROUP BY window_end ORDER BY window_end LIMIT 1";
    let frame = crate::query::query(&context, sql).await.expect("plans");
    let batches = frame.collect().await.expect("runs");
    let lines = text_rows(&batches[0]).expect("printable");
    assert!(lines[0].starts_with("window_end=2026-03-01T23:59:00Z rms="), "{lines:?}");
    assert!(lines[0].ends_with("exact=true"), "number literals are exact: {lines:?}");
}

#[test]
fn programs_go_to_other_threads() {
    fn check<T: Send>() {}
    check::<crate::LaneProgram>();
    check::<crate::FinalProgram>();
    check::<RuleSet>();
}

#[test]
fn rules_over_the_same_windows_keep_one_state() {
    let window = "SELECT meter_id, window_start, window_end, max(u_a_v) AS highest_v\n\
                  FROM TUMBLE(meter_readings, ts, INTERVAL '10 minutes') GROUP BY meter_id, window_start, window_end";
    let set = compile(&[
        rule("windows", TABLE, window),
        rule("high", ALERT, "SELECT meter_id, window_end, highest_v > 240 AS firing FROM windows"),
        rule("same", TABLE, window),
        rule("other_delay", PATIENT, window),
    ]);
    let sharing: Vec<Vec<&str>> = set
        .states()
        .iter()
        .map(|state| state.rules.iter().map(|rule| set.rules()[*rule].header.id.as_str()).collect())
        .collect();
    assert_eq!(sharing, [vec!["high", "same", "windows"], vec!["other_delay"]]);
}
