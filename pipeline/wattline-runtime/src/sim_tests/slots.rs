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
    let operations = survive_in(slots, world, scene, script, faults).await;
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
    faults: impl Fn(u32, u64) -> F,
) -> Vec<u64> {
    let faults = &faults;
    let run = |slot| {
        let place = Place { slot, of: slots };
        survive_at(Some(place), world, scene, script, 1, move |life| faults(slot, life))
    };
    futures::future::join_all((0..slots).map(run)).await
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
