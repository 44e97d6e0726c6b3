//! What the outside can do to a running job, and what is lost, told twice or changed by it: nothing.
//!
//! One small job that uses every kind of rule ([`subject`]), over files or a topic with the same records ([`feed`]), is disturbed in every way
//! and brought to its end; then its tables and its alert topic are compared, row by row, with those of a run that nobody disturbed, and
//! that one with what the input is known to hold. Where the fault is in the input, or a test needs other input, it says itself which rows
//! there must be. Each test writes its row of the table in `docs/faults.md` into the target folder; `scripts/faults` runs all of
//! them, longer than the tests of every day do, and puts the table together.

mod broker_killed;
mod clock_set;
mod crash_points;
mod end_txn;
mod feed;
mod kills;
mod ledger;
mod poison;
mod schema_change;
mod slots;
mod slow_sinks;
mod store_faults;
mod subject;
mod zombie;

use anyhow::{Context, Result};

use crate::setting;

/// How often something is done: `usual` times with the tests of every day, and more if many kills are asked for, once for each
/// `kills_each` of them.
fn rounds(usual: u64, kills_each: u64) -> Result<u64> {
    let kills: Option<u64> =
        setting("WATTLINE_KILLS").map(|text| text.parse()).transpose().context("WATTLINE_KILLS")?;
    Ok(kills.map_or(usual, |kills| usual.max(kills / kills_each)))
}
