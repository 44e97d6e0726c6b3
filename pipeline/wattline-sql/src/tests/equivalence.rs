//! Law: what the streaming engine has given out at the end equals plain DataFusion over the same events,
//! for any batch size, number of workers, tick and restore; and nothing is given out before it is final.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use super::fleet::{Lcg, compile, lane, rule};
use super::shapes::{ALERT, PATIENT, TABLE, more_shapes, shapes};
use crate::test_run::text_rows;
use crate::{CompiledRule, RuleFile, RuleSet, StageState, StateDelta, oracle};

/// How a run is cut.
pub(super) struct Cut {
    pub(super) workers: usize,
    pub(super) batch_max: u64,
    /// Whether it is restored from checkpoints now and then.
    pub(super) restore: bool,
    /// Memory of what the rules keep, if it has a bound: the rest goes to disk now and then.
    pub(super) memory: Option<usize>,
}

/// A program without state.
fn fresh(set: &RuleSet, memory: Option<usize>) -> crate::FinalProgram {
    let program = set.final_program();
    match memory {
        Some(bytes) => program.with_memory(bytes, &std::env::temp_dir()),
        None => program,
    }
}

#[test]
fn stream_equals_batch_for_every_shape_and_cut() {
    compare_with_batch(shapes(), 4);
}

#[test]
fn stream_equals_batch_for_orders_and_stages_and_types() {
    compare_with_batch(more_shapes(), 3);
}

/// `WATTLINE_SHAPES=over_` looks only at the rules whose name begins so, and at what they read.
#[expect(clippy::disallowed_methods, reason = "a way to look at some rules, for people")]
fn compare_with_batch(mut shapes: Vec<RuleFile>, seeds: u64) {
    let wanted = std::env::var("WATTLINE_SHAPES").unwrap_or_default();
    let asked = |rule: &RuleFile| rule.path.contains(&format!("/{wanted}"));
    let texts: String = shapes.iter().filter(|rule| asked(rule)).map(|rule| rule.text.as_str()).collect();
    let name = |rule: &RuleFile| rule.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".sql").to_owned();
    shapes.retain(|rule| asked(rule) || texts.contains(&name(rule)));
    if shapes.is_empty() {
        return;
    }
    let set = compile(&shapes);
    let cuts = [
        Cut { workers: 1, batch_max: 1, restore: false, memory: None },
        Cut { workers: 2, batch_max: 9, restore: true, memory: Some(64 << 10) },
        Cut { workers: 3, batch_max: 400, restore: false, memory: None },
    ];
    for seed in 0..seeds {
        let mut random = Lcg(seed);
        let lanes: Vec<Lane> = (0..5)
            .map(|number| match number {
                0..3 => Lane { stream: "meter_readings", rows: lane(number, 160, &mut random) },
                _ => Lane { stream: "other_readings", rows: lane(number - 3, 90, &mut random) },
            })
            .collect();
        let expected = in_batch(&set, &by_stream(&lanes));
        for cut in &cuts {
            let got = run(&set, &lanes, cut, &mut random);
            for (rule, (got, expected)) in set.rules().iter().zip(got.into_iter().zip(&expected)) {
                assert!(!expected.is_empty(), "rule {} has no rows to compare", rule.header.id);
                assert_eq!(&sorted(got), expected, "rule {} seed {seed} workers {}", rule.header.id, cut.workers);
            }
        }
    }
}

/// The events of one lane.
pub(super) struct Lane {
    pub(super) stream: &'static str,
    pub(super) rows: RecordBatch,
}

/// The batches of each stream.
pub(super) fn by_stream(lanes: &[Lane]) -> BTreeMap<String, Vec<RecordBatch>> {
    let mut streams: BTreeMap<String, Vec<RecordBatch>> = BTreeMap::new();
    lanes.iter().for_each(|lane| streams.entry(lane.stream.to_owned()).or_default().push(lane.rows.clone()));
    streams
}

/// The rows of each rule by plain DataFusion, as sorted text.
pub(super) fn in_batch(set: &RuleSet, streams: &BTreeMap<String, Vec<RecordBatch>>) -> Vec<Vec<String>> {
    let of_rule = |rule: &CompiledRule| {
        let batch = oracle::run_rule_blocking(set, &rule.header.id, streams).expect("batch run");
        sorted(text_rows(&batch).expect("printable"))
    };
    set.rules().iter().map(of_rule).collect()
}

/// The time that the slowest lane of each stream has reached.
pub(super) struct Reached(BTreeMap<&'static str, i64>);

impl Reached {
    pub(super) fn of(lanes: &[Lane], reached_us: &[i64]) -> Self {
        let mut slowest = BTreeMap::new();
        for (lane, reached_us) in lanes.iter().zip(reached_us) {
            let slowest_us = slowest.entry(lane.stream).or_insert(*reached_us);
            *slowest_us = (*slowest_us).min(*reached_us);
        }
        Self(slowest)
    }

    /// The watermark of a rule.
    pub(super) fn watermark(&self, rule: &CompiledRule) -> i64 {
        let reached_us = rule.streams.iter().map(|stream| self.0[stream.as_str()]).min().expect("a stream");
        if reached_us == END_OF_TIME { reached_us } else { reached_us.saturating_sub(rule.delay_ms * 1_000) }
    }

    /// The watermark of each state.
    pub(super) fn watermarks(&self, set: &RuleSet) -> Vec<i64> {
        set.states().iter().map(|state| self.watermark(&set.rules()[state.rules[0]])).collect()
    }
}

pub(super) fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

/// Runs all rules over lanes in random order and cuts; returns the rows of each rule as text.
pub(super) fn run(set: &RuleSet, lanes: &[Lane], cut: &Cut, random: &mut Lcg) -> Vec<Vec<String>> {
    let mut workers: Vec<_> = (0..cut.workers).map(|_| set.lane_program()).collect();
    let mut last = fresh(set, cut.memory);
    let mut checkpoint = Checkpoint::default();
    let mut rows = vec![Vec::new(); set.rules().len()];
    let mut at = vec![0; lanes.len()];
    let mut reached = vec![BEFORE_TIME; lanes.len()];
    while at.iter().zip(lanes).any(|(&at, lane)| at < lane.rows.num_rows()) {
        let lane = usize::try_from(random.below(lanes.len() as u64)).expect("small");
        let Lane { stream, rows: all } = &lanes[lane];
        let size = usize::try_from(1 + random.below(cut.batch_max)).expect("small").min(all.num_rows() - at[lane]);
        if size > 0 {
            let batch = all.slice(at[lane], size);
            at[lane] += size;
            let output = workers[lane % cut.workers].push(u32::try_from(lane).expect("small"), stream, &batch);
            assert_eq!(output.errors, []);
            for result in output.rows {
                let identity = result.identity.expect("stateless rows know their event");
                assert_eq!(identity.num_rows(), result.batch.num_rows());
                rows[result.rule].extend(text_rows(&result.batch).expect("printable"));
            }
            let times = batch
                .column_by_name("ts")
                .unwrap_or_else(|| batch.column(1))
                .as_primitive::<TimestampMicrosecondType>();
            reached[lane] = times.values().iter().copied().fold(reached[lane], i64::max);
        }
        if random.below(3) == 0 {
            let slowest = Reached::of(lanes, &reached);
            let whole = random.below(2) == 0;
            let watermarks = slowest.watermarks(set);
            let taken = |worker: &mut crate::LaneProgram| {
                if whole { worker.seal() } else { worker.close(&watermarks) }.expect("gives its state")
            };
            let deltas: Vec<StateDelta> = workers.iter_mut().flat_map(taken).collect();
            for (state, first) in workers.iter().flat_map(|worker| worker.first_final_us().into_iter().enumerate()) {
                assert!(first > watermarks[state], "nothing that is final stays behind");
            }
            // As the coordinator does: of what was closed between checkpoints only what later windows need.
            let kept = |delta: &&StateDelta| {
                whole || (delta.final_at_us > watermarks[delta.state] && delta.final_at_us != END_OF_TIME)
            };
            checkpoint.changes.extend(deltas.iter().filter(kept).cloned());
            checkpoint.since.extend(deltas.iter().cloned());
            tick(set, &mut last, deltas, &slowest, &mut rows);
            match random.below(8) {
                0 if cut.restore && whole => checkpoint.take(&mut last, random.below(2) == 0),
                1 | 2 if cut.restore => last = checkpoint.restored(set, &slowest, cut.memory),
                _ => {}
            }
        }
    }
    let deltas = workers.iter_mut().flat_map(|worker| worker.seal().expect("seals")).collect();
    tick(set, &mut last, deltas, &Reached::of(lanes, &vec![END_OF_TIME; lanes.len()]), &mut rows);
    assert_eq!(last.state_rows(), 0, "nothing is kept at the end of time: {last:?}");
    rows
}

fn tick(
    set: &RuleSet,
    last: &mut crate::FinalProgram,
    deltas: Vec<StateDelta>,
    reached: &Reached,
    rows: &mut [Vec<String>],
) {
    for (number, delta) in deltas.iter().enumerate() {
        last.merge(delta).expect("merges");
        if number % 8 == 1 {
            last.relieve().expect("spills");
        }
    }
    let watermarks_us = reached.watermarks(set);
    let mut given = Vec::new();
    loop {
        let output = last.advance(&watermarks_us).expect("advances");
        assert_eq!(output.errors, []);
        assert_eq!(output.stopped, []);
        given.extend(output.rows);
        if !output.more {
            break;
        }
        last.relieve().expect("spills");
    }
    for result in given {
        let rule = &set.rules()[result.rule];
        let watermark_us = reached.watermark(rule);
        let times = result.batch.column(rule.event_time_column).as_primitive::<TimestampMicrosecondType>();
        // Groups of an inner window are final before the outer window that they name is over.
        let early = rule.header.id != "both_windows" && times.values().iter().any(|&time| time > watermark_us);
        assert!(!early, "{} gave rows too early", rule.header.id);
        if rule.ordered {
            assert!(times.values().is_sorted(), "{} is out of order", rule.header.id);
        }
        rows[result.rule].extend(text_rows(&result.batch).expect("printable"));
    }
    for delta in &deltas {
        let before = last.state_rows();
        if delta.final_at_us <= watermarks_us[delta.state] && delta.final_at_us != END_OF_TIME {
            last.merge(delta).expect("merges");
            assert_eq!(last.state_rows(), before, "state that was final is ignored");
        }
    }
}

/// What a checkpoint stored, and what came after it.
#[derive(Default)]
struct Checkpoint {
    state: Vec<StateDelta>,
    stages: Vec<StageState>,
    /// What the next checkpoint adds, unless it stores all of the state.
    changes: Vec<StateDelta>,
    /// What lanes that read again would give again.
    since: Vec<StateDelta>,
}

impl Checkpoint {
    fn take(&mut self, last: &mut crate::FinalProgram, all: bool) {
        let rows = last.state_rows();
        let changes = std::mem::take(&mut self.changes);
        if all {
            self.state = last.dump().expect("dumps").collect::<Result<_, _>>().expect("dumps");
        } else {
            self.state.extend(changes);
        }
        self.state.retain(|delta| delta.final_at_us > last.taken_us(delta.state));
        self.stages = last.dump_stages().expect("dumps").collect::<Result<_, _>>().expect("dumps");
        self.since.clear();
        assert_eq!(last.state_rows(), rows, "a dump leaves the state in place");
    }

    /// A program that knows the checkpoint, and what has come in again since; everything up to `reached` is out.
    fn restored(&self, set: &RuleSet, reached: &Reached, memory: Option<usize>) -> crate::FinalProgram {
        let mut fresh = fresh(set, memory);
        for (state, watermark_us) in reached.watermarks(set).into_iter().enumerate() {
            fresh.set_given(state, watermark_us);
        }
        for stage in &self.stages {
            let batch = if stage.batch.num_rows() > 0 { through_ipc(&stage.batch) } else { stage.batch.clone() };
            fresh.restore_stage(&StageState { batch, ..stage.clone() }).expect("restores");
            fresh.relieve().expect("spills");
        }
        // Every so many deltas go through the bytes of a checkpoint: to write and read all of them would take most of the time.
        for (number, delta) in self.state.iter().chain(&self.since).enumerate() {
            let stored = |batch: RecordBatch| if number.is_multiple_of(16) { through_ipc(&batch) } else { batch };
            let half = delta.batch.num_rows() / 2;
            let halves = [delta.batch.slice(0, half), delta.batch.slice(half, delta.batch.num_rows() - half)];
            for batch in halves.into_iter().filter(|batch| batch.num_rows() > 0) {
                let part = StateDelta { batch: stored(batch), ..delta.clone() };
                let taken = if number < self.state.len() { fresh.restore(&part) } else { fresh.merge(&part) };
                taken.expect("takes it in");
            }
        }
        fresh
    }
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
    let context = crate::query::query_context(&Default::default()).expect("no function of its own");
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

#[test]
fn windows_are_merged_from_panes_unless_something_asks_for_the_window() {
    let by = |table: &str, step: &str, column: &str, group: &str| {
        let sql = format!(
            "SELECT meter_id, {group}, {column} AS x\n\
             FROM {table}(meter_readings, ts, INTERVAL '{step}', INTERVAL '10 minutes') GROUP BY meter_id, {group}"
        );
        let set = compile(&[rule("paned", TABLE, &sql)]);
        crate::explain::explain(&set, "paned").expect("known rule").contains("merged from panes of")
    };
    let hop = |slide: &str, column: &str| by("HOP", slide, column, "window_start, window_end");
    assert!(by("CUMULATE", "1 minute", "max(u_a_v)", "window_start, window_end"));
    assert!(by("CUMULATE", "1 minute", "max(u_a_v)", "window_end"));
    assert!(!by("CUMULATE", "1 minute", "max(u_a_v)", "window_start"), "an event is there once for each window");
    assert!(by("HOP", "1 minute", "max(u_a_v)", "window_end"));
    assert!(hop("1 minute", "max(u_a_v)"));
    assert!(hop("5 minutes", "count(*) FILTER (WHERE u_a_v > 240)"));
    assert!(hop("3 minutes", "max(u_a_v)"), "both are of minutes");
    assert!(
        !hop("7 minutes", "max(u_a_v)"),
        "seven panes from one window to the next are more than two windows for a row"
    );
    assert!(!hop("10 minutes", "max(u_a_v)"), "the windows do not overlap");
    assert!(
        !hop("1 minute", "max(extract(epoch FROM ts) - extract(epoch FROM window_start))"),
        "each window has its own answer"
    );
    assert!(!hop("1 minute", "count(*) FILTER (WHERE ts < window_start + INTERVAL '30 seconds')"));
}
