//! The protocols of `wattline-core`, gone through exhaustively: every order of the steps of a few processes, with crashes at each
//! step, requests whose answer never comes, and processes that were taken for dead and go on.
//!
//! ```text
//! chain.rs      one slot: taking lanes, seals, links, tables, the marker of the alerts     decisions of `chain.rs`
//! exchange.rs   two slots that tell each other: outboxes, inboxes, what is taken in        decisions of `exchange.rs`, `chain.rs`
//! search.rs     breadth first over all states, and whether each of them can still come to the end
//! ```
//! The processes decide by the functions that the runtime calls, in its order of calls; the models have only what lies around them:
//! a store with put-if-absent, tables, a topic, inboxes. What is bounded (records, faults, processes) is in `Bounds`.
//!
//! A check that finds nothing may be blind. So each rule that could be left out is left out once (`Shortcut`), and the search has to find
//! what goes wrong, and tells it as the list of steps that lead there. To see these, and how many states there are:
//!
//! ```text
//! cargo test -p wattline-core --test model -- --nocapture
//! ```

mod chain;
mod exchange;
mod search;
