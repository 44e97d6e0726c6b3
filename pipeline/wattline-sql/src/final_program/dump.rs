//! The whole state of a program, one part after the other: what is on disk is never in memory as a whole.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use datafusion::error::Result;

use super::{Run, scratch_or_state};
use crate::error::Error;
use crate::operators::{KeptPart, without_spare_bytes};
use crate::program::{StageState, StateDelta};

/// An iterator over everything that the states held when it was made.
pub struct Dump {
    /// What was in memory.
    pub(super) deltas: std::vec::IntoIter<StateDelta>,
    pub(super) runs: std::vec::IntoIter<DumpedRun>,
    /// The run that is being read.
    pub(super) open: Option<(DumpedRun, Batches)>,
    /// For messages.
    pub(super) rules_of_states: Vec<String>,
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// A part of a state on disk.
pub(super) struct DumpedRun {
    state: usize,
    final_at_us: i64,
    run: Run,
}

impl DumpedRun {
    pub(super) fn new(state: usize, final_at_us: i64, run: &Run) -> Self {
        Self { state, final_at_us, run: run.clone() }
    }
}

impl fmt::Debug for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dump").field("deltas", &self.deltas.len()).field("runs", &self.runs.len()).finish()
    }
}

impl Iterator for Dump {
    type Item = Result<StateDelta, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(delta) = self.deltas.next() {
            return Some(Ok(delta));
        }
        loop {
            if let Some((of, batches)) = &mut self.open {
                let (state, final_at_us) = (of.state, of.final_at_us);
                match batches.next() {
                    Some(Ok(batch)) => return Some(Ok(StateDelta { state, final_at_us, batch })),
                    Some(Err(error)) => return Some(Err(scratch_or_state(&self.rules_of_states[state], error))),
                    None => self.open = None,
                }
            }
            let run = self.runs.next()?;
            match run.run.batches() {
                Ok(batches) => self.open = Some((run, Box::new(batches))),
                Err(error) => return Some(Err(scratch_or_state(&self.rules_of_states[run.state], error))),
            }
        }
    }
}

/// An iterator over everything that the stages of all rules kept when it was made.
pub struct StageDump {
    pub(super) parts: std::vec::IntoIter<DumpedStage>,
    /// The run that is being read, and what it belongs to.
    pub(super) open: Option<(StageState, Batches)>,
    /// For messages.
    pub(super) rules: Vec<String>,
}

/// A part of what the stages of a rule keep.
pub(super) struct DumpedStage {
    pub(super) rule: usize,
    pub(super) taken_us: i64,
    pub(super) part: usize,
    pub(super) kept: KeptPart,
}

impl fmt::Debug for StageDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StageDump").field("parts", &self.parts.len()).finish()
    }
}

impl Iterator for StageDump {
    type Item = Result<StageState, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((of, batches)) = &mut self.open {
                match batches.next() {
                    Some(Ok(batch)) => return Some(Ok(StageState { batch, ..of.clone() })),
                    Some(Err(error)) => return Some(Err(scratch_or_state(&self.rules[of.rule], error))),
                    None => self.open = None,
                }
            }
            let DumpedStage { rule, taken_us, part, kept } = self.parts.next()?;
            let opened = match kept {
                KeptPart::InMemory(batch) => {
                    without_spare_bytes(&batch).map(|batch| Box::new(std::iter::once(Ok(batch))) as Batches)
                }
                KeptPart::OnDisk(run) => run.batches().map(|batches| Box::new(batches) as Batches),
            };
            match opened {
                Ok(batches) => {
                    let none = RecordBatch::new_empty(Arc::new(Schema::empty()));
                    self.open = Some((StageState { rule, taken_us, part, batch: none }, batches));
                }
                Err(error) => return Some(Err(scratch_or_state(&self.rules[rule], error))),
            }
        }
    }
}
