//! A backup at every moment, brought back after the job had gone on: the job that goes on from it holds what the laws say.
//!
//! The alert topic is not brought back: it has what the first job published after the backup, and its marker. Alerts that come a
//! second time have the same ids, and consumers drop them.

use std::collections::BTreeSet;

use super::*;
use crate::snapshot::{newest_link, read_end};

/// What a backup of this moment brings back, of so many slots; `None` before the first link.
async fn restored(slots: u32, world: &World, incarnation: &str) -> Option<Arc<World>> {
    let copy = Arc::new(world.copy());
    let reader = Life::begin(&copy, 0, None);
    let mut ends = Vec::new();
    for slot in (0..slots).map(|slot| slot.to_string()) {
        let last = newest_link(&*reader, &slot, None).await.expect("memory answers");
        if last > 0 {
            let end = read_end(&*reader, "sim", &slot, last).await.expect("memory answers");
            ends.push(end.expect("nobody deletes links"));
        }
    }
    // What a job has not committed anything of needs no backup.
    ends.iter().any(|end| end.last_epoch > 0).then(|| {
        copy.look(|memory| memory.restore(&ends, incarnation));
        copy
    })
}

/// What topics have that no backup has: the restored job finds what the other has said since.
fn keep_topics(of: &World, to: &World) {
    let (markers, inboxes) = of.look(|memory| (memory.markers.clone(), memory.inboxes.clone()));
    to.look(|memory| (memory.markers, memory.inboxes) = (markers, inboxes));
}

/// What came a second time had the id that it had, and consumers know it.
fn drop_known(world: &World) {
    let mut known = BTreeSet::new();
    world.look(|memory| memory.published.retain(|(id, _)| known.insert(id.clone())));
}

#[test]
fn a_job_that_goes_on_from_a_backup_says_what_the_laws_say() {
    let tally = Tally::default();
    let scene = Scene { seed: 11, checkpoint_ms: 12, records: 40, ..SCENE };
    let kinds = [FaultKind::CrashBefore, FaultKind::CrashAfter, FaultKind::AckLost, FaultKind::Unavailable];
    each(120, |case| {
        let script = Arc::new(Script::new(scene.seed, scene.lanes, scene.records));
        let at = 8 + case as u64 * 2;
        let mut dice = Dice::new(case as u64);
        let fault = Fault { at: 5 + dice.below(120), kind: kinds[case % kinds.len()] };
        let context = format!("{scene:?}, backup at {at}, then {fault:?}");
        simulate(&tally, &scene, false, async |world| {
            let first = Life::begin(world, 1, Some(Fault { at, kind: FaultKind::CrashAfter }));
            let died = live(&scene, &script, &first).await.is_err();
            let Some(after) = restored(1, world, "restored").await.filter(|_| died) else { return };
            tally.count(Mishap::Restore);
            // The first job goes on to its end; only the topic keeps what it said.
            survive(world, &scene, &script, 2, |_| None).await;
            keep_topics(world, &after);
            survive(&after, &scene, &script, 3, |life| (life == 3).then_some(fault)).await;
            drop_known(&after);
            oracle::check(&after, &script, &[ends(&script)], &context);
            the_chain_is_true(&after, &context).await;
        });
    });
    tally.had(kinds.map(FaultKind::mishap).into_iter().chain([Mishap::Restore]));
}

/// Slots die where they are, some before their first link; what is restored goes on, and is restored again, from a backup of it or
/// from the first one.
#[test]
fn several_slots_go_on_from_a_backup_and_from_a_backup_of_what_was_restored() {
    let tally = Tally::default();
    each(90, |case| {
        let slots = 2 + u32::try_from(case % 2).expect("few slots");
        let scene = Scene { seed: 1_200 + case as u64, checkpoint_ms: 12, lanes: 4, records: 40, ..SCENE };
        let script = Arc::new(script_of(&scene));
        let at = |slot: u32, life: u64| {
            let mut dice = Dice::new(scene.seed * 1_000 + life * 10 + u64::from(slot));
            // Every second time somebody dies before it has put anything.
            let most = if (case as u64 + u64::from(slot) + life).is_multiple_of(4) { 6 } else { 90 };
            Some(Fault { at: 3 + dice.below(most), kind: FaultKind::CrashAfter })
        };
        let context = format!("{slots} slots, {scene:?}");
        simulate(&tally, &scene, false, async |world| {
            slots::begin_in(slots, world, 1, &scene, &script, |slot| at(slot, 1)).await;
            let backup = world.copy();
            let Some(once) = restored(slots, &backup, "once").await else { return };
            slots::survive_in(slots, world, &scene, &script, 2, |_, _| None).await;
            keep_topics(world, &once);
            slots::begin_in(slots, &once, 3, &scene, &script, |slot| at(slot, 3)).await;
            let of = if case % 3 == 0 { &backup } else { &*once };
            let again = restored(slots, of, "again").await.expect("it has links");
            slots::survive_in(slots, &once, &scene, &script, 4, |_, _| None).await;
            keep_topics(&once, &again);
            slots::survive_in(slots, &again, &scene, &script, 5, |slot, life| at(slot, life).filter(|_| life == 5))
                .await;
            for (world, which) in [(&once, "once"), (&again, "again")] {
                let context = format!("{context}, restored {which}");
                tally.count(Mishap::Restore);
                drop_known(world);
                oracle::check(world, &script, &[ends(&script)], &context);
                for slot in 0..slots {
                    the_chain_of_is_true(&slot.to_string(), world, &context).await;
                }
            }
        });
    });
    tally.had([Mishap::CrashAfter, Mishap::Restore]);
}
