//! Counts what went wrong in the runs of one fault.

use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::tree;

/// How the results of a run differ from those of a run that nobody disturbed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Lines that should be there and are not.
    pub(super) lost: Vec<String>,
    /// Further copies of lines that should be there once.
    pub(super) duplicated: Vec<String>,
    /// Lines that should not be there.
    pub(super) changed: Vec<String>,
}

impl Difference {
    /// Compares two sorted lists.
    pub(super) fn between(expected: &[String], found: &[String]) -> Self {
        let mut difference = Self::default();
        let (mut wanted, mut got) = (expected.iter().peekable(), found.iter().peekable());
        let mut last = None;
        loop {
            match (wanted.peek(), got.peek()) {
                (None, None) => return difference,
                (Some(a), Some(b)) if a == b => {
                    last = got.next();
                    wanted.next();
                }
                (Some(a), b) if b.is_none_or(|b| a < b) => difference.lost.extend(wanted.next().cloned()),
                (_, b) if b.copied() == last => difference.duplicated.extend(got.next().cloned()),
                _ => difference.changed.extend(got.next().cloned()),
            }
        }
    }

    fn first(&self) -> Option<String> {
        let of = |kind: &str, lines: &[String]| lines.first().map(|line| format!("{kind}: {line}"));
        of("lost", &self.lost).or_else(|| of("twice", &self.duplicated)).or_else(|| of("changed", &self.changed))
    }
}

/// The runs of one fault.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Its place in the table.
    number: u32,
    fault: &'static str,
    tally: Mutex<Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    runs: u64,
    lost: usize,
    duplicated: usize,
    changed: usize,
    recoveries: Vec<Duration>,
    /// One difference of each run that has some.
    told: Vec<String>,
}

impl Ledger {
    pub(super) fn new(number: u32, fault: &'static str) -> Self {
        Self { number, fault, tally: Mutex::default() }
    }

    /// Takes a job in that was disturbed so many times. `recoveries`: how long it took from the start of the next process to its
    /// first commit.
    pub(super) fn note(&self, run: &str, times: u64, difference: &Difference, recoveries: &[Duration]) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.runs += times;
        tally.lost += difference.lost.len();
        tally.duplicated += difference.duplicated.len();
        tally.changed += difference.changed.len();
        tally.recoveries.extend(recoveries);
        tally.told.extend(difference.first().map(|first| format!("{run}: {first}")));
    }

    /// Writes the row down.
    ///
    /// # Errors
    /// If anything was lost, told twice or changed.
    pub(super) fn close(self) -> Result<()> {
        let Tally { runs, lost, duplicated, changed, mut recoveries, told } =
            self.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        recoveries.sort_unstable();
        let at = |share: usize| match recoveries.len() {
            0 => "–".to_owned(),
            count => format!("{:.1} s", recoveries[(count - 1) * share / 100].as_secs_f64()),
        };
        let row =
            format!("| {} | {runs} | {lost} | {duplicated} | {changed} | {} | {} |\n", self.fault, at(50), at(99));
        eprint!("{row}");
        let folder = tree::target_folder()?.join("faults");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("{:02}.md", self.number)), row)?;
        ensure!(runs > 0, "no run of `{}`", self.fault);
        ensure!(told.is_empty(), "{} of {runs} runs differ:\n{}", told.len(), told.join("\n"));
        Ok(())
    }
}

#[test]
fn differences_are_told_apart() {
    let lines = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let difference = Difference::between(&lines("a b c d"), &lines("a a c x"));
    let expected = Difference { lost: lines("b d"), duplicated: lines("a"), changed: lines("x") };
    assert_eq!(difference, expected);
    assert_eq!(Difference::between(&lines("a b b"), &lines("a b b")), Difference::default());
    assert_eq!(Difference::between(&lines("a b b"), &lines("a b")).lost, lines("b"));
}
