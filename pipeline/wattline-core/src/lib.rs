//! The words of wattline and its pure decisions: time, lateness, lanes, epochs, chains, alert lifecycle.
//!
//! Nothing here reads a clock, draws a random number, performs I/O or awaits: every function is a function
//! of its arguments, so that the seeded simulator and the property tests can run all of it.

pub mod alert;
pub mod amendment;
pub mod chain;
pub mod chain_check;
pub mod error;
pub mod exchange;
pub mod gap;
pub mod lane;
pub mod late;
pub mod ledger;
pub mod leftover;
pub mod manifest;
pub mod offset_set;
pub mod problem;
pub mod record;
pub mod redemption;
pub mod system_log;
pub mod time;
pub mod wall_clock;
