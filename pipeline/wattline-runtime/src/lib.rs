//! Lanes, ticks, commit and recovery: everything between a source and the tables that is not SQL, Kafka or Delta.
//!
//! ```text
//! source thread ──blocks──▶ worker threads ──────reports──────▶ coordinator (one async task)
//!   poll, route,             a lane lives on ONE worker:          merge partial states, advance to the watermark,
//!   pause when full          decode, guard, lateness,             fold alerts, write files and state,
//!                            raw buffer, rules' lane part         put manifest n, then Delta and alert topic
//! ```
//!
//! What a worker reports at a barrier is a consistent cut of its lanes; since lanes are independent, the union
//! over workers is a consistent cut of the process. The coordinator is the only one that commits.
//!
//! This crate knows neither Kafka nor DataFusion: sources, programs and sinks come in through the traits of
//! [`port`], so that the same loop runs against real components and against simulated ones.

// By this name the adapters of the program know the crate; the simulation runs them too.
#[cfg(test)]
extern crate self as wattline_runtime;

pub mod alerting;
pub mod clock;
mod commit;
mod coordinator;
mod error;
mod events;
pub mod frames;
mod intake;
mod intake_thread;
pub mod leftovers;
mod links;
pub mod port;
pub mod progress;
mod recovery;
mod retry;
#[cfg(test)]
mod sim_tests;
pub mod snapshot;
pub mod standing;
pub mod table;
pub mod threads;
pub mod verify;
mod worker;

pub use coordinator::{
    BackfillPlan, CorrectionPlan, DecoderFactory, ExchangePlan, INSERT, Job, JobSettings, LaneMatch, Programs, RETRACT,
    RulePlan, RunSummary, Running, StatePlan, StreamPlan, backfilled_schema, corrected_schema, rules_revision, run,
    start, with_change,
};
pub use error::{Error, Result};
pub use intake::stream_schema;
