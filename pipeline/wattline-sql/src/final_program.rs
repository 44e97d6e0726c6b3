//! The second stage: merges the partial states of all workers and gives out what the watermark makes final.
//!
//! It is idempotent towards re-reading: state rows of windows (or condition rows) that were already final at
//! the rule's watermark are ignored. A result row whose tail fails to compute is left out and reported; which
//! rows fail does not depend on batching, as a failing batch is halved down to single rows.

use std::fmt;
use std::sync::Arc;

use arrow::compute::concat_batches;
use wattline_core::time::BEFORE_TIME;

use crate::error::Error;
use crate::lane_program::state_error;
use crate::operators::{Chunk, OrderBuffer, PaneSet, record_batch, run_all};
use crate::program::{FinalOutput, RuleFailure, RuleRows, StateDelta};
use crate::rule_set::CompiledRule;

/// All rules, with the merged state of a process.
pub struct FinalProgram {
    rules: Arc<Vec<CompiledRule>>,
    states: Vec<FinalState>,
    watermarks_us: Vec<i64>,
}

enum FinalState {
    Stateless,
    Windows(PaneSet),
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
    pub(crate) fn new(rules: Arc<Vec<CompiledRule>>) -> Self {
        let states = rules
            .iter()
            .map(|rule| match &rule.plan.window {
                Some(window) => FinalState::Windows(PaneSet::new(Arc::clone(window))),
                None if rule.ordered => FinalState::Ordered(OrderBuffer::new(Arc::clone(&rule.output_schema))),
                None => FinalState::Stateless,
            })
            .collect();
        Self { watermarks_us: vec![BEFORE_TIME; rules.len()], rules, states }
    }

    /// Adds state rows: a worker's delta, or a part of a snapshot.
    ///
    /// # Errors
    /// [`Error::State`] if the rows do not have the shape of the rule's state.
    pub fn merge(&mut self, delta: &StateDelta) -> Result<(), Error> {
        let final_at_us = self.watermarks_us[delta.rule];
        let merged = match &mut self.states[delta.rule] {
            FinalState::Stateless => Ok(()),
            FinalState::Windows(panes) => panes.merge(&delta.batch, final_at_us),
            FinalState::Ordered(buffer) => buffer.merge(&delta.batch, final_at_us),
        };
        merged.map_err(|source| state_error(&self.rules[delta.rule], source))
    }

    /// Moves a rule to a watermark (microseconds) and gives out what that makes final. Never moves back.
    ///
    /// # Errors
    /// [`Error::State`] if an accumulator cannot be evaluated.
    pub fn advance(&mut self, rule: usize, watermark_us: i64) -> Result<FinalOutput, Error> {
        let watermark_us = watermark_us.max(self.watermarks_us[rule]);
        self.watermarks_us[rule] = watermark_us;
        let compiled = &self.rules[rule];
        let mut output = FinalOutput::default();
        match &mut self.states[rule] {
            FinalState::Stateless => {}
            FinalState::Windows(panes) => {
                let closed = panes.close_until(watermark_us).map_err(|source| state_error(compiled, source))?;
                for window in closed {
                    run_tail(rule, compiled, Chunk::whole(window), &mut output);
                }
                join_rows(rule, compiled, &mut output)?;
            }
            FinalState::Ordered(buffer) => {
                let released = buffer.release_before(watermark_us).map_err(|source| state_error(compiled, source))?;
                output.rows.extend(released.map(|(batch, identity)| RuleRows {
                    rule,
                    batch,
                    identity: Some(identity),
                }));
            }
        }
        Ok(output)
    }

    /// Says up to where a rule's rows were already final, as a manifest has it; state at or before it is ignored from now on.
    pub fn set_watermark(&mut self, rule: usize, watermark_us: i64) {
        self.watermarks_us[rule] = self.watermarks_us[rule].max(watermark_us);
    }

    /// Up to where a rule's rows are final, microseconds.
    #[must_use]
    pub fn watermark_us(&self, rule: usize) -> i64 {
        self.watermarks_us[rule]
    }

    /// All state as rows, for a snapshot; merging them into an empty program restores it. The state stays.
    ///
    /// # Errors
    /// [`Error::State`] if an accumulator cannot give its state or take it back.
    pub fn dump(&mut self) -> Result<Vec<StateDelta>, Error> {
        let mut deltas = Vec::new();
        for (rule, state) in self.states.iter_mut().enumerate() {
            let batch = match state {
                FinalState::Stateless => Ok(None),
                FinalState::Windows(panes) => panes.drain(),
                FinalState::Ordered(buffer) => buffer.drain(),
            };
            let batch = batch.map_err(|source| state_error(&self.rules[rule], source))?;
            deltas.extend(batch.map(|batch| StateDelta { rule, batch }));
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
            FinalState::Stateless => 0,
            FinalState::Windows(panes) => panes.rows(),
            FinalState::Ordered(buffer) => buffer.rows(),
        };
        self.states.iter().map(rows).sum()
    }

    /// Memory held, bytes.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        let bytes = |state: &FinalState| match state {
            FinalState::Stateless => 0,
            FinalState::Windows(panes) => panes.bytes(),
            FinalState::Ordered(buffer) => buffer.bytes(),
        };
        self.states.iter().map(bytes).sum()
    }
}

fn run_tail(rule: usize, compiled: &CompiledRule, window: Chunk, output: &mut FinalOutput) {
    let mut pending = vec![window];
    while let Some(chunk) = pending.pop() {
        let rows = chunk.len();
        let result = run_all(&compiled.plan.tail, chunk.clone()).and_then(|result| {
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
