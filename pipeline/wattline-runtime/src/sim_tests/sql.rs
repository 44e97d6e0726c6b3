//! The same jobs with the rules that users write: SQL, planned and run by `wattline-sql`, through the same faults and before the same
//! oracle. What the rules of [`rules`] keep in a map, these keep in group tables, window functions and scratch files.
//!
//! A world is that of its seed in [`seeds`] but for the engine, and is played again in the same way:
//!
//! ```text
//! WATTLINE_SEED=4711 cargo test -p wattline-runtime worlds_of_sql
//! ```
//!
//! What is done is a function of the seed here too: the engine draws no hash seeds whose order shows, and puts work on threads of its own
//! only where there is more of it than a world has.

use super::seeds::{Fate, play_twice, play_worlds};
use super::*;

/// Worlds that each run of the tests plays.
const WORLDS: u64 = 200;
/// Worlds that are played twice.
const TWICE: u64 = 10;

const SQL: Scene = Scene { engine: Engine::Sql(None), ..SCENE };

/// By the seed, what rules may have of the memory: as much as they take, nothing, or a few windows.
fn engine_of(seed: u64) -> Engine {
    Engine::Sql(match seed % 4 {
        1 => Some(0),
        3 => Some(20_000),
        _ => None,
    })
}

fn fate_of(seed: u64) -> Fate {
    Fate::of(seed).run_by(engine_of(seed))
}

#[test]
fn without_faults_the_tables_hold_what_the_laws_say() {
    let tally = Tally::default();
    each(12, |seed| {
        let shape = Scene { workers: 1 + seed % 3, lanes: 1 + seed % 4, ..SQL };
        let scene = Scene { seed: seed as u64, engine: engine_of(seed as u64), ..shape };
        play(&tally, scene, &format!("{scene:?}"), |_| None);
    });
    tally.had([Mishap::Spilled]);
}

#[test]
fn a_crash_before_or_after_any_operation_changes_nothing() {
    // Each third one: it takes long enough.
    at_operations(SQL, &[FaultKind::CrashBefore, FaultKind::CrashAfter], 3);
}

#[test]
fn a_crash_changes_nothing_of_what_is_on_disk() {
    let scene = Scene { seed: 5, tick_ms: 6, engine: Engine::Sql(Some(0)), ..SQL };
    at_operations(scene, &[FaultKind::CrashBefore, FaultKind::CrashAfter], 5);
}

#[test]
fn rules_that_come_later_are_given_their_past_whatever_happens() {
    let scene = Scene { seed: 11, checkpoint_ms: 12, correction_ms: 30, ..SQL };
    rules_come_later(30, scene, &[FaultKind::CrashBefore, FaultKind::CrashAfter]);
}

#[test]
fn rules_that_come_later_to_two_slots_are_given_their_past_whatever_happens() {
    let scene = Scene { seed: 21, checkpoint_ms: 15, records: 30, engine: Engine::Sql(Some(0)), ..SQL };
    slots::rules_come_later_at(2, 24, scene, &[FaultKind::CrashBefore, FaultKind::CrashAfter]);
}

#[test]
fn hundreds_of_worlds_of_sql_say_what_the_laws_say() {
    let (tally, are_few) = play_worlds(WORLDS, fate_of);
    // A few worlds need not have them all.
    tally.had(Mishap::OF_WORLDS.into_iter().chain([Mishap::Spilled]).filter(|_| !are_few));
}

#[test]
fn the_same_seed_gives_the_same_trace_of_sql() {
    let tally = play_twice(TWICE, fate_of);
    tally.had([Mishap::CrashBefore, Mishap::CrashAfter, Mishap::Spilled]);
}
