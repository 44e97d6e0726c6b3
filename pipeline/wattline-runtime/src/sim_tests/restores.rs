//! A backup at every moment, brought back after the job had gone on: the job that goes on from it holds what the laws say.
//!
//! The alert topic is not brought back: it has what the first job published after the backup, and its marker. Alerts that come a
//! second time have the same ids, and consumers drop them.

use std::collections::BTreeSet;

use super::slots::survive_at;
use super::*;
use crate::snapshot::{ChainEnd, newest_link, read_end};

/// What a backup of this moment brings back; `None` before the first link.
fn restored(world: &World) -> Option<Arc<World>> {
    let copy = Arc::new(world.copy());
    let reader = Life::begin(&copy, 0, None);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let end = runtime.block_on(async {
        let last = newest_link(&*reader, "0", None).await.expect("memory answers");
        read_end(&*reader, "sim", "0", last).await.expect("memory answers").expect("nobody deletes links")
    });
    (end.last_link > 0).then(|| {
        copy.look(|memory| memory.restore(std::slice::from_ref(&end), "restored"));
        copy
    })
}

#[test]
fn a_job_that_goes_on_from_a_backup_says_what_the_laws_say() {
    let scene = Scene { seed: 11, checkpoint_ms: 12, records: 40, ..SCENE };
    let script = Arc::new(Script::new(scene.seed, scene.lanes, scene.records));
    let kinds = [FaultKind::CrashBefore, FaultKind::CrashAfter, FaultKind::AckLost, FaultKind::Unavailable];
    each(120, |case| {
        let world = Arc::new(World::default());
        let at = 8 + case as u64 * 2;
        let first = Life::begin(&world, 1, Some(Fault { at, kind: FaultKind::CrashAfter }));
        let died = live(&scene, &script, &first).is_err();
        let Some(after) = restored(&world).filter(|_| died) else { return };
        // The first job goes on to its end; only the topic keeps what it said.
        survive(&world, &scene, &script, 2, |_| None);
        let marker = world.look(|memory| memory.markers.clone());
        after.look(|memory| memory.markers = marker);
        let mut dice = Dice::new(case as u64);
        let fault = Fault { at: 5 + dice.below(120), kind: kinds[case % kinds.len()] };
        let context = format!("{scene:?}, backup at {at}, then {fault:?}");
        survive(&after, &scene, &script, 3, |life| (life == 3).then_some(fault));
        let mut known = BTreeSet::new();
        after.look(|memory| memory.published.retain(|(id, _)| known.insert(id.clone())));
        oracle::check(&after, &script, &[ends(&script)], &context);
        the_chain_is_true(&after, &context);
    });
}

/// What a backup of all slots at this moment brings back, under a new identity; `None` before the first link.
fn restored_slots(world: &World, slots: u32, incarnation: &str) -> Option<Arc<World>> {
    let copy = Arc::new(world.copy());
    let reader = Life::begin(&copy, 0, None);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let end_of = async |slot: String| {
        let last = newest_link(&*reader, &slot, None).await.expect("memory answers");
        read_end(&*reader, "sim", &slot, last).await.expect("memory answers").expect("nobody deletes links")
    };
    let ends: Vec<ChainEnd> = (0..slots).map(|slot| runtime.block_on(end_of(slot.to_string()))).collect();
    let ends: Vec<ChainEnd> = ends.into_iter().filter(|end| end.last_link > 0).collect();
    (!ends.is_empty()).then(|| {
        copy.look(|memory| memory.restore(&ends, incarnation));
        copy
    })
}

/// All slots at once, each by one process, which dies somewhere.
fn die_at(places: &[Place], world: &Arc<World>, script: &Arc<Script>, scene: &Scene, number: u64, at: &[u64]) {
    std::thread::scope(|scope| {
        for (place, at) in places.iter().zip(at) {
            scope.spawn(move || {
                let fault = Fault { at: *at, kind: FaultKind::CrashAfter };
                let life = Life::begin_in(place.slot, world, number, Some(fault));
                let outcome = live_at(scene, script, &life, Some(*place));
                assert!(outcome.is_err() && life.is_dead(), "{scene:?}: {place:?} did not die at {at}");
            });
        }
    });
}

/// All slots to the end.
fn survive_all(places: &[Place], world: &Arc<World>, script: &Arc<Script>, scene: &Scene, first_life: u64) {
    std::thread::scope(|scope| {
        for place in places {
            scope.spawn(move || survive_at(*place, world, scene, script, first_life, |_| None));
        }
    });
}

/// A job that was restored dies before its slots have heard what the first one told before its backup, and is restored again, from
/// a backup of its own. Both jobs go on meanwhile, and what they tell is in the inboxes.
#[test]
fn slots_that_are_restored_twice_hear_what_each_life_told_before_its_backup() {
    let scene = Scene { seed: 17, checkpoint_ms: 12, records: 30, lanes: 4, ..SCENE };
    let script = Arc::new(Script::new(scene.seed, scene.lanes, scene.records));
    let twice = AtomicUsize::new(0);
    each(24, |case| {
        let mut dice = Dice::new(1_700 + case as u64);
        let places: Vec<Place> = (0..2).map(|slot| Place { slot, of: 2 }).collect();
        let first = Arc::new(World::default());
        let context = format!("case {case} of {scene:?}");
        die_at(&places, &first, &script, &scene, 1, &[20 + dice.below(30), 20 + dice.below(30)]);
        let Some(second) = restored_slots(&first, 2, "second") else { return };
        survive_all(&places, &first, &script, &scene, 4);
        second.look(|memory| memory.inboxes = first.look(|of| of.inboxes.clone()));
        die_at(&places, &second, &script, &scene, 2, &[16 + dice.below(20), 16 + dice.below(20)]);
        let Some(third) = restored_slots(&second, 2, "third") else { return };
        survive_all(&places, &second, &script, &scene, 4);
        third.look(|memory| memory.inboxes = second.look(|of| of.inboxes.clone()));
        let waits = third.objects().iter().any(|path| {
            let link = third.look(|memory| memory.object(path));
            link.is_some_and(|body| String::from_utf8_lossy(&body).contains("later_cuts"))
        });
        twice.fetch_add(usize::from(waits), Ordering::SeqCst);
        survive_all(&places, &third, &script, &scene, 3);
        let mut known = BTreeSet::new();
        third.look(|memory| memory.published.retain(|(id, _)| known.insert(id.clone())));
        oracle::check(&third, &script, &[ends(&script)], &context);
        places.iter().for_each(|place| the_chain_of_is_true(&place.slot.to_string(), &third, &context));
    });
    assert!(twice.load(Ordering::SeqCst) > 0, "every slot had heard of the second job before it was restored");
}
