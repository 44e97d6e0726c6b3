//! Runs a case of a rule test through the real engine, in several cuts, and through plain DataFusion.
//!
//! The same rows go through batch sizes 1, 7 and all, on one lane and on three, with the watermark moving
//! after every batch, and once through an engine that is started again from a checkpoint after every batch, a worker
//! for each lane; every run and the batch result must equal what the case expects, and each other in
//! the columns that the case leaves out.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::csv::ReaderBuilder;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::Value;
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use crate::catalog::{ReferenceTable, event_time_type};
use crate::error::Error;
use crate::final_program::FinalProgram;
use crate::lane_program::LaneProgram;
use crate::oracle;
use crate::program::{RuleFailure, RuleRows, StageState, StateDelta};
use crate::rule_file::{LatePolicy, RuleFile, rule_of};
use crate::rule_set::RuleSet;
use crate::test_file::{Expected, ExpectedRow, TestCase};

const CUTS: [Cut; 7] = [
    Cut { lanes: 1, batch: 1, restarts: false },
    Cut { lanes: 1, batch: 7, restarts: false },
    Cut { lanes: 1, batch: usize::MAX, restarts: false },
    Cut { lanes: 3, batch: 1, restarts: false },
    Cut { lanes: 3, batch: 7, restarts: false },
    Cut { lanes: 3, batch: 7, restarts: true },
    Cut { lanes: 3, batch: usize::MAX, restarts: false },
];
const BATCH: &str = "batch (plain DataFusion)";
/// Each cut of the stream, and batch.
const RUNS: usize = CUTS.len() + 1;

/// How the rows go through the engine.
#[derive(Debug, Clone, Copy)]
struct Cut {
    lanes: usize,
    /// Rows of a lane in a batch.
    batch: usize,
    /// Whether another process takes over after each batch: new workers, one for each lane, and the state of a checkpoint.
    restarts: bool,
}

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.batch {
            usize::MAX => write!(f, "stream of {} lanes in one batch", self.lanes)?,
            size => write!(f, "stream of {} lanes in batches of {size}", self.lanes)?,
        }
        if self.restarts { f.write_str(", started again after each") } else { Ok(()) }
    }
}

/// Turns JSON rows into a batch of a stream: its columns and the system columns, as one lane would carry them.
pub type GivenRows<'a> = &'a dyn Fn(&str, &[Value]) -> Result<RecordBatch, String>;

/// How a case went.
#[derive(Debug, Clone, Default)]
pub struct TestOutcome {
    /// Empty if all is well; else a text per disagreement, `-` expected and `+` got.
    pub failures: Vec<String>,
    /// The rows of the rule in the order the engine gave them, for the alert lifecycle.
    pub rows: Vec<RuleRows>,
}

/// Runs one case.
///
/// # Errors
/// [`Error::UnknownRule`], or an engine failure; what the case finds is in the outcome.
pub fn run_rule_test(
    set: &RuleSet,
    files: &[RuleFile],
    rule: &str,
    case: &TestCase,
    given_rows: GivenRows<'_>,
) -> Result<TestOutcome, Error> {
    let mut outcome = TestOutcome::default();
    let (number, _) = set.rule(rule).ok_or_else(|| Error::UnknownRule { rule: rule.to_owned() })?;
    let set = match set_of(set, files, rule, case) {
        Ok(set) => set,
        Err(problem) => {
            outcome.failures.push(problem);
            return Ok(outcome);
        }
    };
    let (index, compiled) = set.rule(rule).ok_or_else(|| Error::UnknownRule { rule: rule.to_owned() })?;
    let mut given = Vec::with_capacity(compiled.streams.len());
    for stream in &compiled.streams {
        let rows = case.given.get(stream).map_or(&[][..], Vec::as_slice);
        let rows = match given_rows(stream, rows) {
            Ok(rows) => rows,
            Err(problem) => {
                outcome.failures.push(format!("given rows of `{stream}`: {problem}"));
                return Ok(outcome);
            }
        };
        let time_column = time_column(&set, stream)?;
        // Where late events correct the results, a case says what these are in the end.
        let is_corrected = compiled.header.late == LatePolicy::Update;
        let rows = if case.as_given && !is_corrected { rows } else { in_time_order(&rows, time_column)? };
        let rows = if is_corrected { none_late(&rows)? } else { rows };
        given.push(Given { stream: stream.clone(), time_column, rows });
    }
    let streams = given.iter().map(|of| (of.stream.clone(), vec![of.rows.clone()])).collect();
    let mut findings = Findings::default();
    let batch = match oracle::run_rule_blocking(&set, rule, &streams) {
        Ok(batch) => {
            findings.add(BATCH, compare(case.expect.as_deref(), &batch)?);
            Some(batch)
        }
        Err(error) => {
            findings.add(BATCH, Some(error.to_string()));
            None
        }
    };
    outcome.rows = run_all_cuts(&set, index, &given, case, batch.as_ref(), &mut findings)?;
    outcome.failures.extend(findings.into_texts());
    outcome.rows.iter_mut().for_each(|rows| rows.rule = number);
    Ok(outcome)
}

/// The rows of one stream.
struct Given {
    stream: String,
    time_column: usize,
    rows: RecordBatch,
}

fn time_column(set: &RuleSet, stream: &str) -> Result<usize, Error> {
    let unknown = || Error::Stream { stream: stream.to_owned(), problem: "is not in the catalog".to_owned() };
    let stream = set.catalog().stream(stream).ok_or_else(unknown)?;
    Ok(stream.schema.index_of(&stream.event_time)?)
}

/// The rows sorted by event time, numbered anew and none of them late.
fn in_time_order(given: &RecordBatch, time_column: usize) -> Result<RecordBatch, Error> {
    let times = given.column(time_column).as_primitive::<TimestampMicrosecondType>();
    let mut order: Vec<u32> = (0..u32::try_from(given.num_rows()).unwrap_or(u32::MAX)).collect();
    order.sort_by_key(|&row| times.value(row as usize));
    let sorted = take_record_batch(given, &UInt32Array::from(order))?;
    let rows = i64::try_from(sorted.num_rows()).unwrap_or(i64::MAX);
    let schema = sorted.schema();
    let columns = schema.fields().iter().zip(sorted.columns()).map(|(field, column)| match field.name().as_str() {
        "_offset" => Arc::new(Int64Array::from_iter_values(0..rows)) as ArrayRef,
        "_lateness_ms" => Arc::new(Int64Array::from_iter_values((0..rows).map(|_| 0))),
        _ => Arc::clone(column),
    });
    let columns = columns.collect();
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// The rows as if all had come in time.
fn none_late(rows: &RecordBatch) -> Result<RecordBatch, Error> {
    let schema = rows.schema();
    let mut columns = rows.columns().to_vec();
    columns[schema.index_of("_lateness_ms")?] = Arc::new(Int64Array::from_value(0, rows.num_rows()));
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// What is wrong, and in which runs. What is wrong in all of them alike is told once.
#[derive(Default)]
struct Findings(Vec<(String, Vec<String>)>);

impl Findings {
    fn add(&mut self, run: &str, finding: Option<String>) {
        let Some(finding) = finding else { return };
        match self.0.iter_mut().find(|(known, _)| *known == finding) {
            // Several lanes of one run may say the same.
            Some((_, runs)) if runs.last().is_some_and(|last| last == run) => {}
            Some((_, runs)) => runs.push(run.to_owned()),
            None => self.0.push((finding, vec![run.to_owned()])),
        }
    }

    fn into_texts(self) -> impl Iterator<Item = String> {
        self.0.into_iter().map(|(finding, runs)| match runs.len() {
            RUNS => format!("batch and stream:\n{finding}"),
            _ => format!("{}:\n{finding}", runs.join(", ")),
        })
    }
}

/// The rows of the last cut.
fn run_all_cuts(
    set: &RuleSet,
    rule: usize,
    given: &[Given],
    case: &TestCase,
    batch_result: Option<&RecordBatch>,
    findings: &mut Findings,
) -> Result<Vec<RuleRows>, Error> {
    let mut last = Vec::new();
    for cut in CUTS {
        let name = cut.to_string();
        let run = stream(set, rule, given, cut)?;
        run.errors.into_iter().for_each(|error| findings.add(&name, Some(error)));
        let schema = &set.rules()[rule].output_schema;
        let rows = concat_batches(schema, run.rows.iter().map(|rows| &rows.batch))?;
        findings.add(&name, compare(case.expect.as_deref(), &rows)?);
        let difference = batch_result.map_or(Ok(None), |batch| difference(batch, &rows))?;
        findings.add(&name, difference.map(|lines| format!("{lines}\n  (- batch, + stream)")));
        last = run.rows;
    }
    Ok(last)
}

struct StreamRun {
    rows: Vec<RuleRows>,
    errors: Vec<String>,
}

/// A lane of a stream.
struct GivenLane<'a> {
    of: &'a Given,
    rows: RecordBatch,
    reached_us: i64,
}

impl<'a> GivenLane<'a> {
    fn all(given: &'a [Given], lanes: usize) -> Result<Vec<Self>, Error> {
        let each = given.iter().flat_map(|of| (0..lanes).map(move |lane| (of, lane)));
        each.map(|(of, lane)| {
            let rows = (lane..of.rows.num_rows()).step_by(lanes).map(|row| u32::try_from(row).unwrap_or(u32::MAX));
            let rows = take_record_batch(&of.rows, &UInt32Array::from_iter_values(rows))?;
            Ok(Self { of, rows, reached_us: BEFORE_TIME })
        })
        .collect()
    }
}

/// Pushes the rows of all lanes in turn; the rule's watermark follows the slowest lane.
fn stream(set: &RuleSet, rule: usize, given: &[Given], cut: Cut) -> Result<StreamRun, Error> {
    let compiled = &set.rules()[rule];
    let mut lanes = GivenLane::all(given, cut.lanes)?;
    let workers = if cut.restarts { lanes.len() } else { 1 };
    let mut engine = Engine::new(set, rule, workers);
    let longest = lanes.iter().map(|lane| lane.rows.num_rows()).max().unwrap_or(0);
    let (mut start, mut watermark_us) = (0, BEFORE_TIME);
    while start < longest {
        for (number, lane) in (0_u32..).zip(&mut lanes).filter(|(_, lane)| start < lane.rows.num_rows()) {
            let batch = lane.rows.slice(start, cut.batch.min(lane.rows.num_rows() - start));
            engine.push(number, &lane.of.stream, &batch);
            let times = batch.column(lane.of.time_column).as_primitive::<TimestampMicrosecondType>();
            lane.reached_us = times.values().iter().copied().fold(lane.reached_us, i64::max);
        }
        start = start.saturating_add(cut.batch);
        // A lane without further rows holds nobody up.
        let open = lanes.iter().filter(|lane| start < lane.rows.num_rows()).map(|lane| lane.reached_us);
        let slowest = open.min().unwrap_or(BEFORE_TIME);
        // Nor does a stream go back whose lanes are all without.
        watermark_us = watermark_us.max(slowest.saturating_sub(compiled.delay_ms * 1_000));
        engine.advance(watermark_us)?;
        if cut.restarts {
            engine.start_again(watermark_us)?;
        }
    }
    engine.advance(END_OF_TIME)?;
    Ok(engine.run)
}

/// The programs of a set of which one rule counts, and what came of it.
struct Engine<'a> {
    set: &'a RuleSet,
    rule: usize,
    workers: Vec<LaneProgram>,
    last: FinalProgram,
    run: StreamRun,
}

impl<'a> Engine<'a> {
    fn new(set: &'a RuleSet, rule: usize, workers: usize) -> Self {
        let workers = (0..workers).map(|_| set.lane_program()).collect();
        Self { set, rule, workers, last: set.final_program(), run: StreamRun { rows: Vec::new(), errors: Vec::new() } }
    }

    fn push(&mut self, lane: u32, stream: &str, batch: &RecordBatch) {
        let worker = lane as usize % self.workers.len();
        let output = self.workers[worker].push(lane, stream, batch);
        self.take(output.rows, output.errors);
    }

    fn advance(&mut self, watermark_us: i64) -> Result<(), Error> {
        for worker in &mut self.workers {
            for delta in worker.seal()?.iter().filter(|delta| self.set.states()[delta.state].rules.contains(&self.rule))
            {
                self.last.merge(delta)?;
            }
        }
        let watermarks_us = self.watermarks_us(watermark_us);
        let mut more = true;
        while more {
            let output = self.last.advance(&watermarks_us)?;
            let stopped = output.stopped.into_iter().filter(|(of, _)| *of == self.rule).map(|(_, message)| message);
            self.run.errors.extend(stopped);
            self.take(output.rows, output.errors);
            more = output.more;
        }
        Ok(())
    }

    /// As another process would, from a checkpoint of this moment.
    fn start_again(&mut self, watermark_us: i64) -> Result<(), Error> {
        let mut held: Vec<StateDelta> = self.last.dump()?.collect::<Result<_, _>>()?;
        // What was taken out of the state is out, or kept by the stages of the rule.
        held.retain(|delta| delta.final_at_us > self.last.taken_us(delta.state));
        let stages: Vec<StageState> = self.last.dump_stages()?.collect::<Result<_, _>>()?;
        let mut fresh = Self::new(self.set, self.rule, self.workers.len());
        for (state, watermark_us) in self.watermarks_us(watermark_us).into_iter().enumerate() {
            fresh.last.set_given(state, watermark_us);
        }
        stages.iter().try_for_each(|stage| fresh.last.restore_stage(stage))?;
        held.iter().try_for_each(|delta| fresh.last.merge(delta))?;
        (self.workers, self.last) = (fresh.workers, fresh.last);
        Ok(())
    }

    /// Of each state; what is not of the rule stands still.
    fn watermarks_us(&self, watermark_us: i64) -> Vec<i64> {
        let of_rule = self.set.states().iter().map(|state| state.rules.contains(&self.rule));
        of_rule.map(|of_rule| if of_rule { watermark_us } else { BEFORE_TIME }).collect()
    }

    fn take(&mut self, rows: Vec<RuleRows>, errors: Vec<RuleFailure>) {
        self.run.rows.extend(rows.into_iter().filter(|rows| rows.rule == self.rule));
        self.run.errors.extend(errors.into_iter().filter(|e| e.rule == self.rule).map(|error| error.message));
    }
}

/// The rule and those that it reads, with the reference tables of the case.
fn set_of(set: &RuleSet, files: &[RuleFile], rule: &str, case: &TestCase) -> Result<RuleSet, String> {
    let mut tables = Vec::new();
    for (name, csv) in &case.reference {
        let table = set
            .catalog()
            .references()
            .find(|table| table.name == *name)
            .ok_or_else(|| format!("there is no reference table `{name}`"))?;
        tables.push(read_reference(table, csv).map_err(|problem| format!("reference table `{name}`: {problem}"))?);
    }
    let mut catalog = set.catalog().with_references(tables).map_err(|error| error.to_string())?;
    if let Some(delay_ms) = case.delay_ms {
        catalog = catalog.with_delay(delay_ms);
    }
    RuleSet::compile(&catalog, &read_by(files, rule))
        .map_err(|mistakes| mistakes.iter().map(|mistake| mistake.message.clone()).collect::<Vec<_>>().join("; "))
}

/// The file of a rule, and of all that it reads, directly or through others.
fn read_by(files: &[RuleFile], rule: &str) -> Vec<RuleFile> {
    let id_of = |file: &RuleFile| rule_of(&file.path).map(str::to_owned);
    let by_id: BTreeMap<String, &RuleFile> = files.iter().filter_map(|file| Some((id_of(file)?, file))).collect();
    let (mut wanted, mut found) = (vec![rule.to_owned()], BTreeMap::new());
    while let Some(id) = wanted.pop() {
        if let Some(file) = by_id.get(&id).filter(|_| !found.contains_key(&id)) {
            wanted.extend(file.tables_read());
            found.insert(id, (*file).clone());
        }
    }
    found.into_values().collect()
}

/// Columns that the text leaves out are null.
fn read_reference(table: &ReferenceTable, csv: &str) -> Result<ReferenceTable, String> {
    let csv: String =
        csv.lines().map(str::trim).filter(|line| !line.is_empty()).flat_map(|line| [line, "\n"]).collect();
    let names: Vec<&str> = csv.lines().next().unwrap_or_default().split(',').map(str::trim).collect();
    let fields = names
        .iter()
        .map(|name| {
            let field =
                table.schema.field_with_name(name).map_err(|_unknown| format!("there is no column `{name}`"))?;
            Ok(field.clone().with_nullable(true))
        })
        .collect::<Result<Vec<_>, String>>()?;
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    let reader = ReaderBuilder::new(schema).with_header(true).build(csv.as_bytes()).map_err(|e| e.to_string())?;
    let mut batches = Vec::new();
    for batch in reader {
        let batch = batch.map_err(|error| error.to_string())?;
        let columns: Vec<ArrayRef> = table
            .schema
            .fields()
            .iter()
            .map(|field| match batch.column_by_name(field.name()) {
                Some(column) => Arc::clone(column),
                None => arrow::array::new_null_array(field.data_type(), batch.num_rows()),
            })
            .collect();
        let schema = crate::operators::nullable(&table.schema);
        batches.push(RecordBatch::try_new(schema, columns).map_err(|error| error.to_string())?);
    }
    Ok(ReferenceTable { name: table.name.clone(), schema: crate::operators::nullable(&table.schema), batches })
}

/// What differs, a line a row.
fn compare(expect: Option<&[ExpectedRow]>, rows: &RecordBatch) -> Result<Option<String>, Error> {
    let Some(expect) = expect else { return Ok(None) };
    if let Some(name) = expect.iter().flat_map(|row| row.keys()).find(|name| rows.column_by_name(name).is_none()) {
        return Ok(Some(format!("the expected rows name `{name}`, which the rule does not give")));
    }
    let (missing, surplus) = unmatched(expect, rows);
    if missing.is_empty() && surplus.is_empty() {
        return Ok(None);
    }
    let texts = text_rows(rows)?;
    let schema = rows.schema();
    let missing = missing.into_iter().map(|row| {
        let cell = |name: &String| Some(format!("{name}={}", expect[row].get(name)?));
        let cells: Vec<String> = schema.fields().iter().filter_map(|field| cell(field.name())).collect();
        format!("  - {}", cells.join(" "))
    });
    let mut surplus: Vec<String> = surplus.into_iter().map(|row| format!("  + {}", texts[row])).collect();
    surplus.sort_unstable();
    Ok(Some(missing.chain(surplus).collect::<Vec<_>>().join("\n")))
}

/// Expected and given rows that have no partner, by augmenting paths, as expected rows may be partial.
fn unmatched(expect: &[ExpectedRow], rows: &RecordBatch) -> (Vec<usize>, Vec<usize>) {
    let fits: Vec<Vec<usize>> =
        expect.iter().map(|row| (0..rows.num_rows()).filter(|&at| row_matches(row, rows, at)).collect()).collect();
    let mut partner: Vec<Option<usize>> = vec![None; rows.num_rows()];
    let missing = (0..expect.len())
        .filter(|&row| !augment(row, &fits, &mut partner, &mut vec![false; rows.num_rows()]))
        .collect();
    let surplus = (0..rows.num_rows()).filter(|&at| partner[at].is_none()).collect();
    (missing, surplus)
}

fn augment(row: usize, fits: &[Vec<usize>], partner: &mut [Option<usize>], seen: &mut [bool]) -> bool {
    for &at in &fits[row] {
        if std::mem::replace(&mut seen[at], true) {
            continue;
        }
        let free = match partner[at] {
            None => true,
            Some(other) => augment(other, fits, partner, seen),
        };
        if free {
            partner[at] = Some(row);
            return true;
        }
    }
    false
}

fn row_matches(expect: &ExpectedRow, rows: &RecordBatch, at: usize) -> bool {
    expect.iter().all(|(name, expected)| {
        rows.column_by_name(name).is_some_and(|column| value_matches(expected, &column.slice(at, 1)))
    })
}

fn value_matches(expected: &Expected, got: &ArrayRef) -> bool {
    match expected {
        Expected::Text(text) if text == "null" && got.is_null(0) => true,
        _ if got.is_null(0) => false,
        Expected::Boolean(value) => got.as_boolean_opt().is_some_and(|got| got.value(0) == *value),
        Expected::Number(digits) => number_matches(digits, got),
        Expected::Text(text) if matches!(got.data_type(), DataType::Timestamp(_, _)) => instant_matches(text, got),
        Expected::Text(text) => cast(got, &DataType::Utf8).is_ok_and(|got| got.as_string::<i32>().value(0) == text),
    }
}

fn number_matches(digits: &str, got: &ArrayRef) -> bool {
    if got.data_type().is_integer()
        && let Ok(expected) = digits.parse::<i64>()
    {
        return cast(got, &DataType::Int64).is_ok_and(|got| got.as_primitive::<Int64Type>().value(0) == expected);
    }
    let Ok(expected) = digits.parse::<f64>() else { return false };
    let decimals = digits.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let half = 0.5 * 10_f64.powi(-i32::try_from(decimals).unwrap_or(i32::MAX));
    let slack = half * (1.0 + 1e-9) + f64::EPSILON * expected.abs();
    cast(got, &DataType::Float64)
        .is_ok_and(|got| (got.as_primitive::<Float64Type>().value(0) - expected).abs() <= slack)
}

fn instant_matches(text: &str, got: &ArrayRef) -> bool {
    let text: ArrayRef = Arc::new(arrow::array::StringArray::from(vec![text]));
    let expected = cast(&text, &event_time_type());
    let got = cast(got, &event_time_type());
    match (expected, got) {
        (Ok(expected), Ok(got)) => {
            let value = |array: &ArrayRef| array.as_primitive::<TimestampMicrosecondType>().value(0);
            expected.is_valid(0) && value(&expected) == value(&got)
        }
        _ => false,
    }
}

/// Rows of two results that the other does not have, floats compared at nine digits.
fn difference(batch: &RecordBatch, stream: &RecordBatch) -> Result<Option<String>, Error> {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for text in text_rows(batch)? {
        *counts.entry(text).or_default() -= 1;
    }
    for text in text_rows(stream)? {
        *counts.entry(text).or_default() += 1;
    }
    let lines: Vec<String> = counts
        .into_iter()
        .filter(|(_, count)| *count != 0)
        .map(|(text, count)| format!("  {} {text}", if count < 0 { "-" } else { "+" }))
        .collect();
    Ok((!lines.is_empty()).then(|| lines.join("\n")))
}

/// Each row as one line of `name=value`.
pub(crate) fn text_rows(rows: &RecordBatch) -> Result<Vec<String>, Error> {
    let options = FormatOptions::default().with_null("null");
    let schema = rows.schema();
    let mut lines = vec![String::new(); rows.num_rows()];
    for (field, column) in schema.fields().iter().zip(rows.columns()) {
        let floats = column.as_primitive_opt::<Float64Type>();
        let formatter = ArrayFormatter::try_new(column, &options)?;
        for (row, line) in lines.iter_mut().enumerate() {
            let value = match floats.filter(|_| column.is_valid(row)) {
                Some(floats) => format!("{:.8e}", floats.value(row) + 0.0),
                None => formatter.value(row).to_string(),
            };
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(field.name());
            line.push('=');
            line.push_str(&value);
        }
    }
    Ok(lines)
}
