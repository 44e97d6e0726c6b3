//! Alerts that are told before they are committed, also of conditions over windows: whatever happens, what was told is what the table
//! has in the end, and nothing was ever said differently under one id. The oracle holds both ([`oracle::check`]).

use std::collections::BTreeSet;

use super::*;

const EARLY: Scene = Scene { early: true, ..SCENE };

/// Plays it, and gives of which rules alerts were told early.
fn told_early(tally: &Tally, scene: Scene) -> BTreeSet<String> {
    let script = Arc::new(Script::new(scene.seed, scene.lanes, scene.records));
    simulate(tally, &scene, false, async |world| {
        survive(world, &scene, &script, 1, |_| None).await;
        let context = format!("{scene:?}");
        oracle::check(world, &script, &[ends(&script)], &context);
        the_chain_is_true(world, &context).await;
        world.look(|memory| memory.told_early.values().cloned().collect())
    })
}

#[test]
fn conditions_and_occurrences_are_told_early() {
    let tally = Tally::default();
    let rules: Mutex<Vec<String>> = Mutex::default();
    each(12, |seed| {
        let scene = Scene { seed: seed as u64, workers: 1 + seed % 3, lanes: 1 + seed % 4, records: 120, ..EARLY };
        let told = told_early(&tally, scene);
        rules.lock().unwrap_or_else(PoisonError::into_inner).extend(told);
    });
    // A lane in which much is ahead of the clock tells little before its link.
    let of_rule =
        |rule: &str| rules.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|of| *of == rule).count();
    assert!(of_rule("heavy") >= 4 && of_rule("spike") >= 4, "{rules:?}");
    tally.had([Mishap::ToldEarly]);
}

#[test]
fn nothing_that_was_told_early_is_untrue_wherever_a_process_dies() {
    at_operations(EARLY, &[FaultKind::CrashBefore, FaultKind::CrashAfter], 2);
}

#[test]
fn nothing_that_was_told_early_is_untrue_where_links_are_rare() {
    let scene = Scene { seed: 5, tick_ms: 60, checkpoint_ms: 90, records: 120, ..EARLY };
    at_operations(scene, &[FaultKind::CrashBefore, FaultKind::CrashAfter], 2);
}

#[test]
fn a_failure_to_tell_early_changes_nothing() {
    let scene = Scene { seed: 2, checkpoint_ms: 40, ..EARLY };
    at_operations(scene, &[FaultKind::AckLost, FaultKind::Unavailable], 2);
}

#[test]
fn crash_after_crash_makes_nothing_untrue_that_was_told_early() {
    let tally = Tally::default();
    each(48, |seed| {
        let (tick_ms, checkpoint_ms) = ([4, 30][seed % 2], [10, 25, 80][seed % 3]);
        let (lanes, workers) = (1 + seed % 5, 1 + seed % 3);
        let scene = Scene { seed: 900 + seed as u64, lanes, workers, tick_ms, checkpoint_ms, records: 80, ..EARLY };
        play(&tally, scene, &format!("{scene:?}"), |life| {
            let mut dice = Dice::new(scene.seed * 1_000 + life);
            let kind = [FaultKind::CrashBefore, FaultKind::CrashAfter][usize::from(dice.below(2) == 1)];
            Some(Fault { at: 5 + dice.below(20 + life * 6), kind })
        });
    });
    tally.had([Mishap::CrashBefore, Mishap::CrashAfter, Mishap::ToldEarly]);
}

#[test]
fn lanes_that_come_one_by_one_make_nothing_untrue_that_was_told_early() {
    let tally = Tally::default();
    each(24, |case| {
        let scene = Scene { seed: 950 + case as u64, one_by_one: true, lanes: 4, records: 60, ..EARLY };
        play(&tally, scene, &format!("{scene:?}"), |life| {
            // A lane that no link names is found by the next process alone, and may have events of what was told: the first sees all.
            let at = if life == 1 { 320 } else { 8 } + Dice::new(scene.seed + life).below(30);
            (life <= 3).then_some(Fault { at, kind: FaultKind::CrashBefore })
        });
    });
    tally.had([Mishap::CrashBefore, Mishap::LateLane, Mishap::ToldEarly]);
}
