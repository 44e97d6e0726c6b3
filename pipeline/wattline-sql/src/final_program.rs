//! The second stage: merges the partial states of all workers and gives out what the watermark makes final.
//!
//! It is idempotent towards re-reading: state rows of windows (or condition rows) that were already final at
//! the rule's watermark are ignored. A result row whose tail fails to compute is left out and reported; which
//! rows fail does not depend on batching, as a failing batch is halved down to single rows.

use std::fmt;
use std::sync::Arc;

use arrow::compute::concat_batches;
use wattline_core::time::{BEFORE_TIME, END_OF_TIME};

use crate::error::Error;
use crate::lane_program::state_error;
use crate::operators::{Chunk, FinalPanes, Lookups, OrderBuffer, record_batch, run_all};
use crate::program::{FinalOutput, RuleFailure, RuleRows, StateDelta};
use crate::rule_set::CompiledRule;
use crate::shared_state::SharedState;

/// All rules, with the merged state of a process.
pub struct FinalProgram {
    rules: Arc<Vec<CompiledRule>>,
    shared: Arc<Vec<SharedState>>,
    states: Vec<FinalState>,
    watermarks_us: Vec<i64>,
}

enum FinalState {
    Windows(FinalPanes),
    Ordered(OrderBuffer),
}

impl fmt::Debug for FinalProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FinalProgram")
            .field("rules", &self.rules.len())
            .field("state_rows", &self.state_rows())
            .finish()
    }
}

impl FinalProgram {
    pub(crate) fn new(rules: Arc<Vec<CompiledRule>>, shared: Arc<Vec<SharedState>>) -> Self {
        let states = shared
            .iter()
            .map(|state| {
                let rule = state.first(&rules);
                match &rule.plan.window {
                    Some(window) => FinalState::Windows(FinalPanes::new(Arc::clone(window))),
                    None => FinalState::Ordered(OrderBuffer::new(Arc::clone(&rule.output_schema))),
                }
            })
            .collect();
        Self { watermarks_us: vec![BEFORE_TIME; shared.len()], rules, shared, states }
    }

    /// Adds state rows: a worker's delta, or a part of a snapshot.
    ///
    /// # Errors
    /// [`Error::State`] if the rows do not have the shape of the state.
    pub fn merge(&mut self, delta: &StateDelta) -> Result<(), Error> {
        let final_at_us = self.watermarks_us[delta.state];
        let merged = match &mut self.states[delta.state] {
            FinalState::Windows(panes) => panes.merge(&delta.batch, final_at_us),
            FinalState::Ordered(buffer) => buffer.merge(&delta.batch, final_at_us),
        };
        merged.map_err(|source| state_error(self.shared[delta.state].first(&self.rules), source))
    }

    /// Moves a state to a watermark (microseconds) and gives out what that makes final, for each of its rules. Never moves
    /// back.
    ///
    /// # Errors
    /// [`Error::State`] if an accumulator cannot be evaluated.
    pub fn advance(&mut self, state: usize, watermark_us: i64) -> Result<FinalOutput, Error> {
        let watermark_us = watermark_us.max(self.watermarks_us[state]);
        self.watermarks_us[state] = watermark_us;
        let shared = &self.shared[state];
        let mut output = FinalOutput::default();
        match &mut self.states[state] {
            FinalState::Windows(panes) => {
                let closed = panes.close_until(watermark_us);
                let closed = closed.map_err(|source| state_error(shared.first(&self.rules), source))?;
                let lookups: Vec<Lookups> = closed.iter().map(|_window| Lookups::default()).collect();
                for &rule in &shared.rules {
                    let compiled = &self.rules[rule];
                    let mut of_rule = FinalOutput::default();
                    for (window, lookups) in closed.iter().zip(&lookups) {
                        run_tail(rule, compiled, Chunk::whole(window.clone()), lookups, &mut of_rule);
                    }
                    join_rows(rule, compiled, &mut of_rule)?;
                    output.rows.extend(of_rule.rows);
                    output.errors.extend(of_rule.errors);
                }
            }
            FinalState::Ordered(buffer) => {
                let released = buffer.release_before(watermark_us);
                let released = released.map_err(|source| state_error(shared.first(&self.rules), source))?;
                let rows = |rule: &usize| {
                    let (batch, identity) = released.clone()?;
                    Some(RuleRows { rule: *rule, batch, identity: Some(identity) })
                };
                output.rows.extend(shared.rules.iter().filter_map(rows));
            }
        }
        Ok(output)
    }

    /// Says up to where what a state gives was already final, as a manifest has it; state at or before it is ignored from
    /// now on.
    pub fn set_watermark(&mut self, state: usize, watermark_us: i64) {
        self.watermarks_us[state] = self.watermarks_us[state].max(watermark_us);
    }

    /// The whole state as rows; the program keeps it.
    ///
    /// # Errors
    /// [`Error::State`] if an accumulator cannot give its state or take it back.
    pub fn dump(&mut self) -> Result<Vec<StateDelta>, Error> {
        let mut deltas = Vec::new();
        for (state, held) in self.states.iter_mut().enumerate() {
            let taken = match held {
                FinalState::Windows(panes) => panes.drain(),
                FinalState::Ordered(buffer) => {
                    buffer.drain_before(END_OF_TIME).map(|taken| taken.into_iter().collect())
                }
            };
            let taken = taken.map_err(|source| state_error(self.shared[state].first(&self.rules), source))?;
            deltas.extend(taken.into_iter().map(|(final_at_us, batch)| StateDelta { state, final_at_us, batch }));
        }
        for delta in &deltas {
            self.merge(delta)?;
        }
        Ok(deltas)
    }

    /// Groups and waiting rows held.
    #[must_use]
    pub fn state_rows(&self) -> usize {
        let rows = |state: &FinalState| match state {
            FinalState::Windows(panes) => panes.rows(),
            FinalState::Ordered(buffer) => buffer.rows(),
        };
        self.states.iter().map(rows).sum()
    }

    /// Memory held, bytes.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        let bytes = |state: &FinalState| match state {
            FinalState::Windows(panes) => panes.bytes(),
            FinalState::Ordered(buffer) => buffer.bytes(),
        };
        self.states.iter().map(bytes).sum()
    }
}

fn run_tail(rule: usize, compiled: &CompiledRule, window: Chunk, lookups: &Lookups, output: &mut FinalOutput) {
    let mut pending = vec![window];
    while let Some(chunk) = pending.pop() {
        let rows = chunk.len();
        let result = run_all(&compiled.plan.tail, chunk.clone(), lookups).and_then(|result| {
            let Some(result) = result else { return Ok(None) };
            record_batch(&compiled.output_schema, result.batch.columns().to_vec(), result.len()).map(Some)
        });
        match result {
            Ok(batch) => output.rows.extend(batch.map(|batch| RuleRows { rule, batch, identity: None })),
            Err(_) if rows > 1 => {
                pending.push(chunk.slice(rows / 2, rows - rows / 2));
                pending.push(chunk.slice(0, rows / 2));
            }
            Err(error) => output.errors.push(RuleFailure {
                rule,
                lane: None,
                row: None,
                partition: None,
                offset: None,
                message: error.strip_backtrace(),
            }),
        }
    }
}

/// One batch per call rather than one per window.
fn join_rows(rule: usize, compiled: &CompiledRule, output: &mut FinalOutput) -> Result<(), Error> {
    if output.rows.len() < 2 {
        return Ok(());
    }
    let batch = concat_batches(&compiled.output_schema, output.rows.iter().map(|rows| &rows.batch))
        .map_err(|source| state_error(compiled, source.into()))?;
    output.rows = vec![RuleRows { rule, batch, identity: None }];
    Ok(())
}
