//! Tests over whole rules: stream equals batch, and every mistake has its place.

mod backfill;
mod corrections;
mod diagnostics;
mod effect;
mod equivalence;
mod fleet;
mod nexmark;
mod panics;
mod patterns;
mod random_queries;
mod reference;
mod rule_tests;
mod second_stage;
mod shapes;
mod shared_keys;
mod spill;
