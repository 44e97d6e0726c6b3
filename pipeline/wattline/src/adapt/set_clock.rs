//! A clock that a test sets while the job runs: that of the machine plus the milliseconds that a file says at the moment.
//!
//! The file is to be replaced as a whole. Without it, the clock is that of the machine. Only debug builds have this.

use std::fs;
use std::path::PathBuf;

use wattline_runtime::clock::{Clock, SystemClock};

/// The clock of the machine, set by a file.
#[derive(Debug)]
pub(crate) struct SetClock {
    offset_file: PathBuf,
}

impl SetClock {
    /// Set by the number in this file.
    pub(crate) fn by(offset_file: PathBuf) -> Self {
        Self { offset_file }
    }
}

impl Clock for SetClock {
    fn now_ms(&self) -> i64 {
        let text = fs::read_to_string(&self.offset_file).unwrap_or_default();
        SystemClock.now_ms().saturating_add(text.trim().parse().unwrap_or(0))
    }
}
