//! A job in several slots: each runs by itself, with crashes of its own, and together they give what one gives.

use super::*;
use crate::ExchangePlan;
use script::{SlotSource, inbox_of};

pub(super) fn source(
    scene: &Scene,
    script: &Arc<Script>,
    life: &Arc<Life>,
    place: Place,
    clock: &Arc<dyn Clock>,
) -> Box<dyn Source> {
    let part = Arc::new(script.part_of(place));
    let lanes = ScriptedSource::new(scene, &part, life, Arc::clone(clock));
    Box::new(SlotSource::new(lanes, &life.world, place.slot))
}

pub(super) fn exchange(life: &Arc<Life>, place: Place) -> ExchangePlan {
    ExchangePlan {
        place,
        inbox: inbox_of(place.slot),
        sink: Arc::clone(life) as _,
        // Small, so that what a link tells comes in many parts.
        message_bytes: if place.slot == 0 { 1 } else { 1_000 },
    }
}

/// One world with several slots, from the beginning to the end; gives the operations of the first process of each.
fn play_at<F: IntoIterator<Item = Fault>>(
    tally: &Tally,
    slots: u32,
    scene: Scene,
    context: &str,
    faults: impl Fn(u32, u64) -> F,
) -> Vec<u64> {
    let script = Arc::new(script_of(&scene));
    simulate(tally, &scene, false, async |world| play_in(slots, world, &scene, &script, context, faults).await)
}

/// As [`play_at`], in a world that is there.
pub(super) async fn play_in<F: IntoIterator<Item = Fault>>(
    slots: u32,
    world: &Arc<World>,
    scene: &Scene,
    script: &Arc<Script>,
    context: &str,
    faults: impl Fn(u32, u64) -> F,
) -> Vec<u64> {
    play_on_in(slots, world, scene, script, 1, context, faults).await
}

/// Goes on with these processes, to the end.
async fn play_on_in<F: IntoIterator<Item = Fault>>(
    slots: u32,
    world: &Arc<World>,
    scene: &Scene,
    script: &Arc<Script>,
    first_life: u64,
    context: &str,
    faults: impl Fn(u32, u64) -> F,
) -> Vec<u64> {
    let operations = survive_in(slots, world, scene, script, first_life, faults).await;
    oracle::check(world, script, &[ends(script)], context);
    for slot in 0..slots {
        the_chain_of_is_true(&slot.to_string(), world, context).await;
    }
    operations
}

/// Runs the processes of all slots until each has come to the end.
pub(super) async fn survive_in<F: IntoIterator<Item = Fault>>(
    slots: u32,
    world: &Arc<World>,
    scene: &Scene,
    script: &Arc<Script>,
    first_life: u64,
    faults: impl Fn(u32, u64) -> F,
) -> Vec<u64> {
    let faults = &faults;
    let run =
        |place: Place| survive_at(Some(place), world, scene, script, first_life, move |life| faults(place.slot, life));
    futures::future::join_all(places(slots).map(run)).await
}

fn places(slots: u32) -> impl Iterator<Item = Place> {
    (0..slots).map(move |slot| Place { slot, of: slots })
}

/// Runs one process of each slot; when one dies, the others are told to stop.
pub(super) async fn begin_in(
    slots: u32,
    world: &Arc<World>,
    number: u64,
    scene: &Scene,
    script: &Arc<Script>,
    fault: impl Fn(u32) -> Option<Fault>,
) {
    let (stop, _) = watch::channel(false);
    let (stop, fault) = (&stop, &fault);
    let run = async |place: Place| {
        let life = Life::begin_in(place.slot, world, number, fault(place.slot));
        let outcome = live_until(scene, script, &life, Some(place), stop.subscribe()).await;
        assert!(outcome.is_ok() || life.is_dead(), "{scene:?}, {place:?}: {outcome:?}");
        if life.is_dead() {
            stop.send_replace(true);
        }
    };
    futures::future::join_all(places(slots).map(run)).await;
}

/// The first processes die or are stopped somewhere; the next have rules that are new and are given their past, and one of them
/// has a fault somewhere.
pub(super) fn rules_come_later_at(slots: u32, cases: usize, scene: Scene, kinds: &[FaultKind]) {
    let tally = Tally::default();
    let scene = Scene { late_comers_from: Some(2), ..scene };
    each(cases, |case| {
        let mut dice = Dice::new(scene.seed * 1_000 + case as u64);
        let first: Vec<u64> = (0..slots).map(|_| 20 + dice.below(80)).collect();
        let fault = Fault { at: 1 + (case / kinds.len()) as u64 * 3, kind: kinds[case % kinds.len()] };
        let faulty = u32::try_from(case / kinds.len()).expect("few cases") % slots;
        let context = format!("{slots} slots, {scene:?}, {first:?}, then {fault:?} of {faulty}");
        let script = Arc::new(script_of(&scene));
        simulate(&tally, &scene, false, async |world| {
            let dies = |slot: u32| Some(Fault { at: first[slot as usize], kind: FaultKind::CrashBefore });
            begin_in(slots, world, 1, &scene, &script, dies).await;
            play_on_in(slots, world, &scene, &script, 2, &context, |slot, life| {
                (slot == faulty && life == 2).then_some(fault)
            })
            .await;
        });
    });
    tally.had(kinds.iter().map(|kind| kind.mishap()).chain([Mishap::CrashBefore, Mishap::LateRules]));
}

#[test]
fn several_slots_give_what_one_gives() {
    let tally = Tally::default();
    each(12, |seed| {
        let slots = 1 + u32::try_from(seed % 4).expect("few slots");
        let scene = Scene { seed: 700 + seed as u64, workers: 1 + seed % 2, lanes: 1 + seed % 5, ..SCENE };
        play_at(&tally, slots, scene, &format!("{slots} slots, {scene:?}"), |_, _| None);
    });
    tally.had([]);
}

#[test]
fn a_crash_at_any_operation_of_one_of_several_slots_changes_nothing() {
    let tally = Tally::default();
    let scene = Scene { seed: 11, records: 30, checkpoint_ms: 15, ..SCENE };
    let kinds = [FaultKind::CrashBefore, FaultKind::CrashAfter, FaultKind::AckLost];
    let operations = play_at(&tally, 2, scene, "no fault", |_, _| None);
    let most = usize::try_from(*operations.iter().max().expect("two slots")).expect("few operations");
    // Each third one: it takes long enough.
    each(most * kinds.len() / 3, |case| {
        let case = case * 3 + case % 3;
        let fault = Fault { at: (case / kinds.len() + 1) as u64, kind: kinds[case % kinds.len()] };
        let slot = u32::try_from(case % 2).expect("a bit");
        let context = format!("slot {slot} of 2, {scene:?}, {fault:?}");
        play_at(&tally, 2, scene, &context, |of, life| (of == slot && life == 1).then_some(fault));
    });
    tally.had(kinds.map(FaultKind::mishap));
}

#[test]
fn crash_after_crash_in_all_of_several_slots_changes_nothing() {
    let tally = Tally::default();
    each(24, |seed| {
        let (checkpoint_ms, correction_ms) = ([10, 25, 80][seed % 3], [0, 40][seed % 2]);
        let slots = 2 + u32::try_from(seed % 3).expect("few slots");
        let scene = Scene { seed: 800 + seed as u64, lanes: 4, records: 30, checkpoint_ms, correction_ms, ..SCENE };
        play_at(&tally, slots, scene, &format!("{slots} slots, {scene:?}"), |slot, life| {
            let mut dice = Dice::new(scene.seed * 1_000 + life * 10 + u64::from(slot));
            let kind = [FaultKind::CrashBefore, FaultKind::CrashAfter][usize::from(dice.below(2) == 1)];
            Some(Fault { at: 5 + dice.below(20 + life * 8), kind })
        });
    });
    tally.had([Mishap::CrashBefore, Mishap::CrashAfter]);
}

#[test]
fn rules_that_come_later_to_two_slots_are_given_their_past_whatever_happens() {
    let scene = Scene { seed: 21, checkpoint_ms: 15, ..SCENE };
    rules_come_later_at(2, 80, scene, &[FaultKind::CrashBefore, FaultKind::CrashAfter]);
}

#[test]
fn rules_that_come_later_to_four_slots_are_given_their_past_through_faults_of_the_store() {
    let scene = Scene { seed: 22, checkpoint_ms: 12, correction_ms: 30, lanes: 5, records: 30, ..SCENE };
    rules_come_later_at(4, 80, scene, &[FaultKind::AckLost, FaultKind::CrashAfter, FaultKind::Unavailable]);
}

#[test]
fn rules_that_come_later_to_several_slots_are_given_their_past_crash_after_crash() {
    let tally = Tally::default();
    each(24, |case| {
        let slots = 2 + u32::try_from(case % 3).expect("few slots");
        let checkpoint_ms = [8, 20, 60][case % 3];
        let scene = Scene { seed: 900 + case as u64, lanes: 4, records: 40, checkpoint_ms, ..SCENE };
        let scene = Scene { late_comers_from: Some(2), ..scene };
        let script = Arc::new(script_of(&scene));
        let dice = |slot: u32, life: u64| Dice::new(scene.seed * 1_000 + life * 10 + u64::from(slot));
        let fault = |slot: u32, life: u64| {
            let kind = [FaultKind::CrashBefore, FaultKind::CrashAfter][usize::from(dice(slot, life).below(2) == 1)];
            Some(Fault { at: 5 + dice(slot, life + 500).below(60 + life * 8), kind })
        };
        let context = format!("{slots} slots, {scene:?}");
        simulate(&tally, &scene, false, async |world| {
            begin_in(slots, world, 1, &scene, &script, |slot| fault(slot, 1)).await;
            play_on_in(slots, world, &scene, &script, 2, &context, fault).await;
        });
    });
    tally.had([Mishap::CrashBefore, Mishap::CrashAfter, Mishap::LateRules]);
}

#[test]
fn rules_that_come_to_several_slots_when_all_input_has_ended_are_given_their_past() {
    let tally = Tally::default();
    each(16, |case| {
        let slots = 2 + u32::try_from(case % 3).expect("few slots");
        let scene = Scene { seed: 1_000 + case as u64, late_comers_from: Some(2), ..SCENE };
        let script = Arc::new(script_of(&scene));
        let fault = Fault { at: 1 + case as u64 * 3, kind: FaultKind::CrashAfter };
        let context = format!("{slots} slots, {scene:?}, {fault:?}");
        simulate(&tally, &scene, false, async |world| {
            begin_in(slots, world, 1, &scene, &script, |_| None).await;
            play_on_in(slots, world, &scene, &script, 2, &context, |slot, life| {
                (slot == 0 && life == 2).then_some(fault)
            })
            .await;
        });
    });
    tally.had([Mishap::CrashAfter, Mishap::LateRules]);
}
