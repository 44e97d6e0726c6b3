//! How far a long command is, on stderr: a bar that is drawn over itself on a terminal, else a line for each tenth of the way.
//!
//! Work of one step says nothing. What the command prints on stdout is the same either way.

use std::io::IsTerminal;

use crate::report;

const BAR_CHARS: usize = 30;

/// The way of one piece of work.
pub(super) struct ProgressLine {
    what: String,
    unit: &'static str,
    total: usize,
    is_terminal: bool,
    /// Tenths of the way that were told.
    told: usize,
}

impl ProgressLine {
    /// Nothing is done yet; `unit` is the plural of what is counted.
    pub(super) fn new(what: impl Into<String>, unit: &'static str, total: usize) -> Self {
        Self { what: what.into(), unit, total, is_terminal: std::io::stderr().is_terminal(), told: 0 }
    }

    /// So much is done.
    pub(super) fn at(&mut self, done: usize) {
        if self.total < 2 {
            return;
        }
        let done = done.min(self.total);
        let Self { what, unit, total, .. } = self;
        if self.is_terminal {
            let filled = BAR_CHARS * done / *total;
            let bar = format!("{}{}", "=".repeat(filled), " ".repeat(BAR_CHARS - filled));
            report::print_error(&format!("\r{what} [{bar}] {done} of {total} {unit}"));
        } else if done * 10 / *total > self.told {
            report::print_error(&format!("{what}: {done} of {total} {unit}\n"));
        }
        self.told = done * 10 / self.total;
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        if self.is_terminal && self.total > 1 {
            report::print_error("\r\x1b[K");
        }
    }
}
