//! The whole state of a program, one delta after the other: what is on disk is never in memory as a whole.

use std::fmt;

use arrow::array::RecordBatch;
use datafusion::error::Result;

use super::{Run, scratch_or_state};
use crate::error::Error;
use crate::program::StateDelta;

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
