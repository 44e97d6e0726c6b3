//! What the outside can do to a running job, and what is lost, told twice or changed by it: nothing.
//!
//! One small job that uses every kind of rule ([`subject`]) is disturbed in every way and brought to its end; then its tables and its alert topic are
//! compared, row by row, with those of a run that nobody disturbed, and that one with what the input is known to hold.
//! Each test writes its row of the table in `docs/faults.md` into the target folder; `scripts/faults` runs all of them, longer than the tests of
//! every day do, and puts the table together.

mod crash_points;
mod kills;
mod ledger;
mod store_faults;
mod subject;
mod zombie;
