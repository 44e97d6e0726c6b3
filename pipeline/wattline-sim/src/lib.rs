//! A made-up grid for tests and benches: records that know what they are.
//!
//! A test of exactness needs input whose every defect is known. So the generator does not read real data and
//! spoil some of it; it makes each record on purpose (in order, out of order within the delay, late beyond it,
//! or broken in one of five ways), and counts what it made. Everything is a function of the settings and the
//! seed; the same call gives the same bytes on every machine. There is no allocation per record.
//!
//! ```text
//! subject (meters, devices, cases) ──nominal time, key──▶ disorder ──time, class──▶ subject ──payload──▶ record
//! ```
//! A broken record never moves the clock of its lane, and neither does a late one: [`Generator`] keeps, per
//! partition, the highest time that an accepted record had, which is what lateness is measured against.

pub mod avro;
mod devices;
mod disorder;
mod generator;
mod meters;
mod random;
pub mod reference;
mod text;
mod transactions;

pub use devices::Devices;
pub use disorder::{Class, Counts, Defect, Disorder};
pub use generator::{Generator, Record, Subject};
pub use meters::Meters;
pub use random::Random;
pub use transactions::Transactions;

/// 2026-03-02T00:00:00+08:00 in milliseconds since the epoch: when every generated stream begins.
pub const START_MS: i64 = 1_772_380_800_000;
