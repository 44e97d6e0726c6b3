//! The first stage: all rules over the batches of a worker's lanes.
//!
//! State stays here, in hash tables that live across batches, until a window is final ([`LaneProgram::close`]) or a
//! snapshot is due ([`LaneProgram::seal`]). Rules that share a state are evaluated once up to it, and fail together.
//!
//! Rows later than a rule's delay are left out by one mask per distinct delay, computed once per batch.
//! A rule that fails on a row is quarantined in that lane: events before the row count, the row and all
//! later events of the lane do not. Which row that is must not depend on how rows were batched, so a failing
//! batch is halved until single rows show which of them fails on its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use datafusion::common::internal_datafusion_err;
use datafusion::error::{DataFusionError, Result};
use wattline_core::time::END_OF_TIME;

use crate::error::Error;
use crate::operators::{
    Chunk, KeyNumbers, LanePanes, Lookups, OrderBuffer, identity_schema, record_batch, run_all, without_panic,
};
use crate::planner::{Feed, Hold};
use crate::program::{LaneOutput, RuleFailure, RuleRows, StateDelta};
use crate::rule_set::CompiledRule;
use crate::shared_state::SharedState;

/// All rules, with the partial state of one worker.
pub struct LaneProgram {
    rules: Arc<Vec<CompiledRule>>,
    shared: Arc<Vec<SharedState>>,
    by_stream: BTreeMap<String, Vec<Step>>,
    states: Vec<LaneState>,
    /// One for each kind of key.
    key_numbers: Vec<KeyNumbers>,
    quarantined: BTreeSet<(Step, u32)>,
}

/// What is run over a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// A rule without state.
    Rule(usize),
    /// A state, for all rules that share it.
    State(usize),
}

/// The batch that was pushed, and what its rules have looked up so far.
#[derive(Debug, Clone, Copy)]
struct Input<'a> {
    batch: &'a RecordBatch,
    lookups: &'a Lookups,
}

enum LaneState {
    Windows {
        panes: LanePanes,
        /// Which of the [`LaneProgram::key_numbers`] numbers its keys; `None` without group columns.
        numbers: Option<usize>,
    },
    Ordered(OrderBuffer),
}

/// How a step failed.
enum Failure {
    /// In an expression: nothing of the chunk has been applied.
    Expression(DataFusionError),
    /// In the state, after the expressions: the chunk cannot be tried again in parts.
    State(DataFusionError),
}

impl From<DataFusionError> for Failure {
    fn from(error: DataFusionError) -> Self {
        Self::Expression(error)
    }
}

impl fmt::Debug for LaneProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneProgram").field("rules", &self.rules.len()).field("state_rows", &self.state_rows()).finish()
    }
}

impl LaneProgram {
    /// `shared` are the states of the rules that run: all of them, or the `only` one.
    pub(crate) fn new(rules: Arc<Vec<CompiledRule>>, shared: Arc<Vec<SharedState>>, only: Option<usize>) -> Self {
        let mut by_stream: BTreeMap<String, Vec<Step>> = BTreeMap::new();
        for (number, rule) in rules.iter().enumerate().filter(|(number, _)| only.is_none_or(|only| only == *number)) {
            if let [Feed { hold: Hold::Nothing, stream, .. }] = &rule.plan.feeds[..] {
                by_stream.entry(stream.clone()).or_default().push(Step::Rule(number));
            }
        }
        for (number, state) in shared.iter().enumerate() {
            by_stream.entry(state.feed(&rules).stream.clone()).or_default().push(Step::State(number));
        }
        let mut key_numbers: Vec<KeyNumbers> = Vec::new();
        let mut states = Vec::with_capacity(shared.len());
        for state in shared.iter() {
            let feed = state.feed(&rules);
            let Hold::Windows(window) = &feed.hold else {
                states.push(LaneState::Ordered(OrderBuffer::new(Arc::clone(&feed.schema))));
                continue;
            };
            let mut numbers = key_numbers.iter().position(|numbers| numbers.fits(&window.key_schema));
            if numbers.is_none() && !window.keys.is_empty() {
                numbers = Some(key_numbers.len());
                key_numbers.push(KeyNumbers::new(&window.key_schema));
            }
            states.push(LaneState::Windows { panes: LanePanes::new(Arc::clone(window)), numbers });
        }
        Self { rules, shared, by_stream, states, key_numbers, quarantined: BTreeSet::new() }
    }

    /// Runs all rules of `stream` over one batch of one lane.
    ///
    /// The batch has the stream's schema: its columns, then the system columns. Its rows are in offset order.
    pub fn push(&mut self, lane: u32, stream: &str, batch: &RecordBatch) -> LaneOutput {
        let mut output = LaneOutput::default();
        let Some(steps) = self.by_stream.get(stream).cloned() else { return output };
        let lookups = Lookups::default();
        let mut on_time: BTreeMap<i64, Result<Chunk, String>> = BTreeMap::new();
        for step in steps {
            if self.quarantined.contains(&(step, lane)) {
                continue;
            }
            let delay_ms = self.rule_of(step).delay_ms;
            let chunk = on_time
                .entry(delay_ms)
                .or_insert_with(|| within_delay(batch, delay_ms).map_err(|error| error.strip_backtrace()));
            match chunk {
                Ok(chunk) if chunk.len() == 0 => {}
                Ok(chunk) => {
                    let chunk = chunk.clone();
                    self.run_step(step, lane, Input { batch, lookups: &lookups }, chunk, &mut output);
                }
                Err(message) => {
                    let message = message.clone();
                    self.fail(step, lane, batch, 0, &message, &mut output);
                }
            }
        }
        self.key_numbers.iter_mut().for_each(KeyNumbers::forget_answers);
        output
    }

    /// Stops a rule in a lane, as a manifest says it was stopped before, and with it all that share its state.
    pub fn quarantine(&mut self, rule: usize, lane: u32) {
        for rule in self.sharers(rule) {
            self.quarantined.insert((Step::Rule(rule), lane));
            let states = (0..self.shared.len()).filter(|state| self.shared[*state].rules.contains(&rule));
            self.quarantined.extend(states.map(|state| (Step::State(state), lane)));
        }
    }

    /// The rule, and all that share a state with it, directly or through others.
    fn sharers(&self, rule: usize) -> BTreeSet<usize> {
        let mut sharers = BTreeSet::from([rule]);
        loop {
            let known = sharers.len();
            for state in self.shared.iter() {
                if state.rules.iter().any(|of| sharers.contains(of)) {
                    sharers.extend(&state.rules);
                }
            }
            if sharers.len() == known {
                return sharers;
            }
        }
    }

    /// Takes all partial state out, to be merged by the final program: one delta per window.
    ///
    /// # Errors
    /// [`Error::State`] if an accumulator cannot give its state.
    pub fn seal(&mut self) -> Result<Vec<StateDelta>, Error> {
        let deltas = self.close(&vec![END_OF_TIME; self.states.len()])?;
        self.key_numbers.iter_mut().for_each(KeyNumbers::clear);
        Ok(deltas)
    }

    /// Takes out the partial state that the given watermark of each state (microseconds) makes final: no event that is
    /// in time can change it any more.
    ///
    /// # Errors
    /// [`Error::State`] if an accumulator cannot give its state.
    pub fn close(&mut self, watermarks_us: &[i64]) -> Result<Vec<StateDelta>, Error> {
        let mut deltas = Vec::new();
        for (state, (held, watermark_us)) in self.states.iter_mut().zip(watermarks_us).enumerate() {
            let taken = match held {
                LaneState::Windows { panes, numbers } => {
                    let numbers = numbers.map(|at| &mut self.key_numbers[at]);
                    without_panic(|| panes.drain_until(*watermark_us, numbers))
                }
                LaneState::Ordered(buffer) => {
                    buffer.drain_before(*watermark_us).map(|taken| taken.into_iter().collect())
                }
            };
            let taken = taken.map_err(|source| state_error(self.shared[state].rule(&self.rules), source))?;
            deltas.extend(taken.into_iter().map(|(final_at_us, batch)| StateDelta { state, final_at_us, batch }));
        }
        self.key_numbers.iter_mut().for_each(KeyNumbers::forget_answers);
        Ok(deltas)
    }

    /// For each state the lowest watermark at which [`close`](Self::close) would find something, microseconds since the
    /// epoch; the end of time if nothing is held.
    #[must_use]
    pub fn first_final_us(&self) -> Vec<i64> {
        let first = |state: &LaneState| match state {
            LaneState::Windows { panes, .. } => panes.first_final_us(),
            LaneState::Ordered(buffer) => buffer.first_us().map(|us| us.saturating_add(1)),
        };
        self.states.iter().map(|state| first(state).unwrap_or(END_OF_TIME)).collect()
    }

    /// Groups and waiting rows held.
    #[must_use]
    pub fn state_rows(&self) -> usize {
        let rows = |state: &LaneState| match state {
            LaneState::Windows { panes, .. } => panes.rows(),
            LaneState::Ordered(buffer) => buffer.rows(),
        };
        self.states.iter().map(rows).sum()
    }

    /// Memory held by partial state, bytes.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        let bytes = |state: &LaneState| match state {
            LaneState::Windows { panes, .. } => panes.bytes(),
            LaneState::Ordered(buffer) => buffer.bytes(),
        };
        let numbers: usize = self.key_numbers.iter().map(KeyNumbers::bytes).sum();
        numbers + self.states.iter().map(bytes).sum::<usize>()
    }

    fn rule_of(&self, step: Step) -> &CompiledRule {
        match step {
            Step::Rule(rule) => &self.rules[rule],
            Step::State(state) => self.shared[state].rule(&self.rules),
        }
    }

    fn run_step(&mut self, step: Step, lane: u32, input: Input<'_>, chunk: Chunk, output: &mut LaneOutput) {
        let mut pending = vec![chunk];
        while let Some(chunk) = pending.pop() {
            match self.run_chunk(step, input, &chunk) {
                Ok(rows) => output.rows.extend(rows),
                Err(Failure::Expression(_)) if chunk.len() > 1 => {
                    let half = chunk.len() / 2;
                    pending.push(chunk.slice(half, chunk.len() - half));
                    pending.push(chunk.slice(0, half));
                }
                Err(Failure::Expression(error) | Failure::State(error)) => {
                    let row = chunk.source_row(0);
                    self.fail(step, lane, input.batch, row, &error.strip_backtrace(), output);
                    return;
                }
            }
        }
    }

    fn run_chunk(&mut self, step: Step, input: Input<'_>, chunk: &Chunk) -> Result<Option<RuleRows>, Failure> {
        let Input { batch: source, lookups } = input;
        let feed = match step {
            Step::Rule(rule) => &self.rules[rule].plan.feeds[0],
            Step::State(state) => self.shared[state].feed(&self.rules),
        };
        let read = chunk.batch.project(&feed.columns).map_err(DataFusionError::from)?;
        let read = Chunk { batch: read, rows: chunk.rows.clone() };
        let Some(result) = without_panic(|| run_all(&feed.steps, read, lookups))? else { return Ok(None) };
        let schema = Arc::clone(&feed.schema);
        let time_column = feed.time_column;
        let state = match step {
            Step::Rule(rule) => {
                let identity = Some(identity_of(source, &result)?);
                let batch = record_batch(&schema, result.batch.columns().to_vec(), result.len())?;
                return Ok(Some(RuleRows { rule, batch, identity }));
            }
            Step::State(state) => state,
        };
        match &mut self.states[state] {
            LaneState::Windows { panes, numbers } => {
                let partial = without_panic(|| panes.spec().evaluate(&result))?;
                let numbers = match numbers {
                    Some(at) => self.key_numbers[*at].of(&partial.keys).map_err(Failure::State)?,
                    None => UInt32Array::from_value(0, result.len()),
                };
                without_panic(|| panes.update(&partial, &numbers)).map_err(Failure::State)?;
            }
            LaneState::Ordered(buffer) => {
                let identity = identity_of(source, &result)?;
                let times = times_of(source, time_column, &result)?;
                let rows = record_batch(&schema, result.batch.columns().to_vec(), result.len())?;
                buffer.push(times, &identity, &rows).map_err(Failure::State)?;
            }
        }
        Ok(None)
    }

    fn fail(&mut self, step: Step, lane: u32, batch: &RecordBatch, row: usize, message: &str, output: &mut LaneOutput) {
        let rules = match step {
            Step::Rule(rule) => BTreeSet::from([rule]),
            Step::State(state) => self.sharers(self.shared[state].rules[0]),
        };
        rules.iter().for_each(|rule| self.quarantine(*rule, lane));
        let column = |name| batch.column_by_name(name);
        let partition = column("_partition").and_then(|c| c.as_primitive_opt::<Int32Type>()).map(|c| c.value(row));
        let offset = column("_offset").and_then(|c| c.as_primitive_opt::<Int64Type>()).map(|c| c.value(row));
        let failure = |rule| RuleFailure {
            rule,
            lane: Some(lane),
            row: Some(row),
            partition,
            offset,
            message: message.to_owned(),
        };
        output.errors.extend(rules.into_iter().map(failure));
    }
}

pub(crate) fn state_error(rule: &CompiledRule, source: DataFusionError) -> Error {
    Error::State { rule: rule.header.id.clone(), source: Box::new(source) }
}

/// The rows that are not later than the delay.
pub(crate) fn within_delay(batch: &RecordBatch, delay_ms: i64) -> Result<Chunk> {
    let lateness = batch
        .column_by_name("_lateness_ms")
        .and_then(|column| column.as_primitive_opt::<Int64Type>())
        .ok_or_else(|| internal_datafusion_err!("the batch has no column `_lateness_ms` of type Int64"))?;
    let chunk = Chunk::whole(batch.clone());
    if lateness.values().iter().all(|&late| late <= delay_ms) {
        return Ok(chunk);
    }
    let mask: BooleanArray = lateness.values().iter().map(|&late| Some(late <= delay_ms)).collect();
    chunk.keep(&mask)
}

fn identity_of(source: &RecordBatch, chunk: &Chunk) -> Result<RecordBatch> {
    let schema = identity_schema();
    let columns = schema
        .fields()
        .iter()
        .map(|field| {
            let column = source
                .column_by_name(field.name())
                .ok_or_else(|| internal_datafusion_err!("the batch has no column `{}`", field.name()))?;
            Ok(Arc::clone(column))
        })
        .collect::<Result<Vec<_>>>()?;
    let taken = match &chunk.rows {
        None => columns,
        Some(rows) => {
            let identity = RecordBatch::try_from_iter(schema.fields().iter().map(|f| f.name().as_str()).zip(columns))?;
            take_record_batch(&identity, rows)?.columns().to_vec()
        }
    };
    let rows = chunk.len();
    let plain = taken
        .into_iter()
        .map(|column| match column.data_type() {
            DataType::Dictionary(_, _) => cast(&column, &DataType::Utf8),
            _ => Ok(column),
        })
        .collect::<Result<Vec<_>, _>>()?;
    record_batch(&schema, plain, rows)
}

fn times_of(source: &RecordBatch, column: usize, chunk: &Chunk) -> Result<Int64Array> {
    let times = source
        .column(column)
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| internal_datafusion_err!("the event time is not a timestamp in microseconds"))?;
    Ok(match &chunk.rows {
        None => Int64Array::new(times.values().clone(), None),
        Some(rows) => rows.values().iter().map(|&row| times.value(row as usize)).collect(),
    })
}
