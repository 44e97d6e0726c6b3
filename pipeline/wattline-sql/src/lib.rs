//! The only crate that plans SQL: rule files in, a push-based streaming program out.
//!
//! ```text
//! rule file ─▶ header + query ─▶ logical plan (shared by streaming, batch, tests and `query`)
//!                                   │ checks: every mistake of every file, with its place
//!                                   ▼
//!            stream plan: lane operators │ window aggregate │ tail operators
//!                     │                                  │
//!           LaneProgram (per worker)  ─ StateDelta ─▶  FinalProgram (per process)
//! ```
//! Rules are not run as DataFusion execution plans: those end with their input, while a stream does not.
//! DataFusion's physical expressions, group tables and accumulators are kept alive across batches instead,
//! which is also three to ten times cheaper than re-executing a plan per batch and rule.
//!
//! Invariants: a row's outcome depends on the row, its event time and the reference tables, never on batch
//! boundaries or lanes; what a rule has emitted at watermark W is exactly what DataFusion computes over the
//! same events up to W ([`oracle`] is that computation).

pub mod catalog;
mod check;
pub mod diagnostic;
mod error;
pub mod explain;
mod final_program;
mod functions;
mod lane_program;
mod logical;
mod operators;
pub mod oracle;
mod output;
mod pattern;
mod planner;
mod program;
pub mod query;
mod rule_file;
mod rule_set;
mod shared_state;
pub mod test_file;
mod test_run;
mod user_functions;

pub use catalog::{Catalog, ReferenceTable, Stream};
pub use diagnostic::{Diagnostic, Severity};
pub use error::Error;
pub use final_program::{Dump, FinalProgram, StageDump};
pub use lane_program::LaneProgram;
pub use program::{FinalOutput, LaneOutput, RuleFailure, RuleRows, StageState, StateDelta};
pub use rule_file::{Delivery, LatePolicy, Param, ParamValue, RuleFile, RuleHeader, RuleKind, RuleSeverity, rule_of};
pub use rule_set::{CompiledRule, RuleSet};
pub use shared_state::SharedState;
pub use test_run::{GivenRows, TestOutcome, run_rule_test};
pub use user_functions::UserFunctions;

#[cfg(test)]
mod tests;
