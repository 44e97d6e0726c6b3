//! State that goes to disk, and a disk that is full: the coordinator waits where nothing is half done, until there is room.
//!
//! ```text
//! merge ─▶ over its share ─▶ relieve: does the disk take it? ─ no ─▶ kept in memory, owed
//! before an advance, and between its parts: what is owed is tried until it is done; the message says which folder is full
//! ```
//! A program whose write failed has all it had (see its port), so the same call may be made again. While the coordinator waits, no
//! tick is cut, the buffers of the workers fill, and the sources are held back: as with any sink that is away. What one tick has
//! merged is all that memory has to hold meanwhile.

use std::sync::Arc;

use wattline_core::error::Retry;

use super::Coordinator;
use crate::error::Result;
use crate::port::FinalOutput;
use crate::retry::until_done;

impl Coordinator {
    /// Puts state on disk, if there is too much and the disk takes it. Else that is owed: sorting it for each try would cost more
    /// than it helps.
    pub(super) fn relieve_if_it_can(&mut self) -> Result<()> {
        if self.owes_relief {
            return Ok(());
        }
        match self.final_program.relieve() {
            Err(error) if error.retry() == Retry::Backoff => {
                self.owes_relief = true;
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Puts state on disk, if there is too much, however long that takes.
    pub(super) async fn relieve(&mut self) -> Result<()> {
        let (program, progress) = (&mut self.final_program, Arc::clone(&self.progress));
        until_done("putting state on disk", &progress, || std::future::ready(program.relieve())).await?;
        self.owes_relief = false;
        Ok(())
    }

    /// As the program's own, however long the disk takes.
    pub(super) async fn advance_program(&mut self, watermarks_us: &[i64]) -> Result<FinalOutput> {
        let (program, progress) = (&mut self.final_program, Arc::clone(&self.progress));
        until_done("merging state on disk", &progress, || std::future::ready(program.advance(watermarks_us))).await
    }
}
