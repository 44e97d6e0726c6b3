//! Objects of a slot that nothing names any more, for whoever looks after an archive beside its job or without it.
//!
//! Which they are, and why they may go, is said by [`wattline_core::leftover`]. A job looks for those of its own slot once in each
//! life (`coordinator/clean_up.rs`); this is for the rest: jobs that do not run, and what a job could not delete.

use std::collections::BTreeSet;

use wattline_core::leftover::{OBJECT_FOLDERS, is_left_over};

use crate::error::Result;
use crate::port::Store;
use crate::snapshot::{ChainEnd, newest_link, read_end};

/// How often a chain is read that moves on meanwhile.
const LOOKS_MAX: u32 = 20;

/// What the end of the chain of a slot still needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    checkpoint: u64,
    objects: BTreeSet<String>,
}

impl Needed {
    fn of(end: ChainEnd) -> Self {
        Self { checkpoint: end.checkpoint, objects: end.objects.into_iter().collect() }
    }

    /// Whether an object of the slot, which was listed before the end of the chain was read, is needed by nobody.
    pub fn is_left_over(&self, path: &str) -> bool {
        is_left_over(path, self.checkpoint, &self.objects)
    }
}

/// Reads what the end of a chain still needs; `None` if it has no link, or moves on faster than it can be read.
///
/// # Errors
/// If the store does not answer, or a link cannot be read.
pub async fn needed(store: &dyn Store, job: &str, slot: &str) -> Result<Option<Needed>> {
    for _ in 0..LOOKS_MAX {
        let newest = newest_link(store, slot, None).await?;
        if newest == 0 {
            break;
        }
        if let Some(end) = read_end(store, job, slot, newest).await? {
            return Ok(Some(Needed::of(end)));
        }
    }
    Ok(None)
}

/// The objects of a slot that nobody needs.
///
/// # Errors
/// As for [`needed`].
pub async fn leftovers(store: &dyn Store, job: &str, slot: &str) -> Result<Vec<String>> {
    let mut listed = Vec::new();
    for folder in OBJECT_FOLDERS {
        listed.extend(store.list(&format!("{folder}/{slot}/")).await?);
    }
    let needed = needed(store, job, slot).await?;
    listed.retain(|path| needed.as_ref().is_some_and(|needed| needed.is_left_over(path)));
    Ok(listed)
}
