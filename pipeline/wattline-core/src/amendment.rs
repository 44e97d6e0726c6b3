//! An amendment: a change of tables that comes from outside of a job's chain, a restatement or a redemption.
//!
//! ```text
//! files of new rows, of the audit row (invisible) ──▶ PUT amendments/<n>.json ──▶ Delta commits with txn(app, n)
//!                                                      ▲ commit point               1. files into their tables
//!                                                                                    2. dead letters out of theirs
//! ```
//! It is made as an epoch is made: one object, created only if its number is free, says all that is to be; the rest repeats
//! itself without harm, as each table remembers the number that it has. Number n + 1 is put only after n is in its tables, so the
//! newest alone may be unfinished, and whoever amends next finishes it first. The numbers are a chain of their own: no job reads
//! them, none of a job's links knows of them. Objects are kept, since a number that was free again could be taken twice; a backup holds
//! those of its moment, so that a restored archive knows which numbers its tables have, and an unfinished one can be finished there.
//!
//! | a crash … | leaves | and the next run |
//! |---|---|---|
//! | before the put | files that nothing names, for vacuum | finds the tables as they were, and computes the same |
//! | during the put | an amendment or none | goes on from what is there |
//! | between two Delta commits | some tables at n, others not | commits the others; events are for a while rows and letters, of which the letters do not count |
//! | after the last one | nothing undone | has nothing to do |

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::manifest::AddedFile;

/// Version of the format that this build writes and reads.
pub const AMENDMENT_FORMAT: u32 = 1;

/// Folder of the amendments below that of the job.
pub const AMENDMENTS: &str = "amendments/";

/// What one amendment changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amendment {
    /// Format version, [`AMENDMENT_FORMAT`].
    pub format: u32,
    /// Name of the job.
    pub job: String,
    /// Drawn with number 1, and the same in all that follow: part of the application id in Delta transactions.
    pub incarnation: String,
    /// Its number, from 1.
    pub n: u64,
    /// Drawn by the process that made it: tells a lost acknowledgement from a lost race.
    pub nonce: String,
    /// The clock at the put, milliseconds since the epoch.
    pub created_ms: i64,
    /// Files that it adds, by table.
    pub adds: BTreeMap<String, Vec<AddedFile>>,
    /// Rows of the table of dead letters that it takes out.
    pub letters_out: Vec<LetterRows>,
}

/// Rows of the table of dead letters, by the numbers that the job gave them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterRows {
    /// Their `_topic`.
    pub topic: String,
    /// First and last `_offset` of each stretch, ascending.
    pub offsets: Vec<(i64, i64)>,
}

impl Amendment {
    /// Name of number `n` below the job's folder. Zero-padded, so that listings are in order.
    pub fn path(n: u64) -> String {
        format!("{AMENDMENTS}{n:020}.json")
    }

    /// The number in the name of an object, if it is that of an amendment.
    pub fn number_of(path: &str) -> Option<u64> {
        path.strip_prefix(AMENDMENTS)?.strip_suffix(".json")?.parse().ok()
    }

    /// Application id of the amendments of a job in Delta transactions.
    pub fn app_id(&self) -> String {
        format!("wattline/{}/amendments/{}", self.job, self.incarnation)
    }

    /// Whether it takes out that row of the table of dead letters.
    pub fn takes_out(&self, topic: &str, offset: i64) -> bool {
        let within = |offsets: &[(i64, i64)]| {
            let at = offsets.partition_point(|(_, last)| *last < offset);
            offsets.get(at).is_some_and(|(first, _)| *first <= offset)
        };
        self.letters_out.iter().any(|rows| rows.topic == topic && within(&rows.offsets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_named_by_stretches() {
        let rows = LetterRows { topic: "dead_letters/0".into(), offsets: vec![(3, 3), (7, 9)] };
        let amendment = Amendment {
            format: AMENDMENT_FORMAT,
            job: "grid".into(),
            incarnation: "i".into(),
            n: 12,
            nonce: "me".into(),
            created_ms: 0,
            adds: BTreeMap::new(),
            letters_out: vec![rows],
        };
        let out: Vec<i64> = (0..12).filter(|offset| amendment.takes_out("dead_letters/0", *offset)).collect();
        assert_eq!(out, [3, 7, 8, 9]);
        assert!(!amendment.takes_out("dead_letters/1", 3));
        assert_eq!(Amendment::number_of(&Amendment::path(12)), Some(12));
        assert_eq!(Amendment::number_of("chains/0/1.json"), None);
    }
}
