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
    let seed = scene.seed ^ (life.number << 32) ^ (u64::from(place.slot) << 48);
    let lanes = ScriptedSource::new(&part, seed, Arc::clone(clock), scene.records_per_block);
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

/// Runs the processes of one slot until one of them comes to the end.
fn survive_at(
    place: Place,
    world: &Arc<World>,
    scene: &Scene,
    script: &Arc<Script>,
    fault: impl Fn(u64) -> Option<Fault>,
) -> u64 {
    let mut operations = None;
    for number in 1..LIVES_MAX {
        let life = Life::begin_in(place.slot, world, number, fault(number));
        let outcome = live_at(scene, script, &life, Some(place));
        operations.get_or_insert_with(|| life.operations());
        match outcome {
            Ok(summary) => {
                assert!(summary.ended, "{scene:?}: nobody asked it to stop");
                return operations.unwrap_or_default();
            }
            Err(error) => {
                assert!(life.is_dead(), "{scene:?}: {place:?}, life {number} with {:?}: {error:?}", fault(number));
            }
        }
    }
    panic!("{scene:?}: no process of {place:?} came to the end");
}

/// One world with several slots, from the beginning to the end; gives the operations of the first process of each, and the world.
pub(super) fn play_at(
    slots: u32,
    scene: Scene,
    context: &str,
    fault: impl Fn(u32, u64) -> Option<Fault> + Sync,
) -> (Vec<u64>, Arc<World>) {
    let mut script = Script::new(scene.seed, scene.lanes, scene.records);
    script.one_by_one = scene.one_by_one;
    let script = Arc::new(script);
    let world = Arc::new(World::default());
    let places: Vec<Place> = (0..slots).map(|slot| Place { slot, of: slots }).collect();
    let operations = std::thread::scope(|scope| {
        let (world, script, scene, fault) = (&world, &script, &scene, &fault);
        let run = |place: Place| survive_at(place, world, scene, script, |life| fault(place.slot, life));
        let running: Vec<_> = places.iter().map(|place| scope.spawn(move || run(*place))).collect();
        running.into_iter().map(|slot| slot.join().expect("a slot that comes to its end")).collect()
    });
    oracle::check(&world, &script, &[ends(&script)], context);
    places.iter().for_each(|place| the_chain_of_is_true(&place.slot.to_string(), &world, context));
    (operations, world)
}

#[test]
fn several_slots_give_what_one_gives() {
    each(12, |seed| {
        let slots = 1 + u32::try_from(seed % 4).expect("few slots");
        let scene = Scene { seed: 700 + seed as u64, workers: 1 + seed % 2, lanes: 1 + seed % 5, ..SCENE };
        play_at(slots, scene, &format!("{slots} slots, {scene:?}"), |_, _| None);
    });
}

#[test]
fn a_crash_at_any_operation_of_one_of_several_slots_changes_nothing() {
    let scene = Scene { seed: 11, records: 30, checkpoint_ms: 15, ..SCENE };
    let kinds = [FaultKind::CrashBefore, FaultKind::CrashAfter, FaultKind::AckLost];
    let (operations, _) = play_at(2, scene, "no fault", |_, _| None);
    let most = usize::try_from(*operations.iter().max().expect("two slots")).expect("few operations");
    // Each third one: it takes long enough.
    each(most * kinds.len() / 3, |case| {
        let case = case * 3 + case % 3;
        let fault = Fault { at: (case / kinds.len() + 1) as u64, kind: kinds[case % kinds.len()] };
        let slot = u32::try_from(case % 2).expect("a bit");
        let context = format!("slot {slot} of 2, {scene:?}, {fault:?}");
        play_at(2, scene, &context, |of, life| (of == slot && life == 1).then_some(fault));
    });
}

#[test]
fn crash_after_crash_in_all_of_several_slots_changes_nothing() {
    each(24, |seed| {
        let (checkpoint_ms, correction_ms) = ([10, 25, 80][seed % 3], [0, 40][seed % 2]);
        let slots = 2 + u32::try_from(seed % 3).expect("few slots");
        let scene = Scene { seed: 800 + seed as u64, lanes: 4, records: 30, checkpoint_ms, correction_ms, ..SCENE };
        play_at(slots, scene, &format!("{slots} slots, {scene:?}"), |slot, life| {
            let mut dice = Dice::new(scene.seed * 1_000 + life * 10 + u64::from(slot));
            let kind = [FaultKind::CrashBefore, FaultKind::CrashAfter][usize::from(dice.below(2) == 1)];
            Some(Fault { at: 5 + dice.below(20 + life * 8), kind })
        });
    });
}
