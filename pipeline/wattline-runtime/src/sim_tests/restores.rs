//! A backup at every moment, brought back after the job had gone on: the job that goes on from it holds what the laws say.
//!
//! The alert topic is not brought back: it has what the first job published after the backup, and its marker. Alerts that come a
//! second time have the same ids, and consumers drop them.

use std::collections::BTreeSet;

use super::*;
use crate::snapshot::{newest_link, read_end};

/// What a backup of this moment brings back; `None` before the first link.
async fn restored(world: &World) -> Option<Arc<World>> {
    let copy = Arc::new(world.copy());
    let reader = Life::begin(&copy, 0, None);
    let last = newest_link(&*reader, "0", None).await.expect("memory answers");
    let end = read_end(&*reader, "sim", "0", last).await.expect("memory answers").expect("nobody deletes links");
    (end.last_link > 0).then(|| {
        copy.look(|memory| memory.restore(std::slice::from_ref(&end), "restored"));
        copy
    })
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
            let Some(after) = restored(world).await.filter(|_| died) else { return };
            tally.count(Mishap::Restore);
            // The first job goes on to its end; only the topic keeps what it said.
            survive(world, &scene, &script, 2, |_| None).await;
            let marker = world.look(|memory| memory.markers.clone());
            after.look(|memory| memory.markers = marker);
            survive(&after, &scene, &script, 3, |life| (life == 3).then_some(fault)).await;
            let mut known = BTreeSet::new();
            after.look(|memory| memory.published.retain(|(id, _)| known.insert(id.clone())));
            oracle::check(&after, &script, &[ends(&script)], &context);
            the_chain_is_true(&after, &context).await;
        });
    });
    tally.had(kinds.map(FaultKind::mishap).into_iter().chain([Mishap::Restore]));
}
