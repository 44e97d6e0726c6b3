//! Cleaning up with each checkpoint, where every link before it is old: nothing is deleted that is needed, nothing stays that is not,
//! and a process that sleeps until its links are gone does no harm.
//!
//! The retention is zero here, so that what takes a week happens within a few links.

use std::collections::BTreeSet;

use wattline_core::manifest::Manifest;

use super::*;
use crate::leftovers::leftovers;
use crate::recovery::{link_numbers, read_manifest};
use crate::verify::{newest_epoch, note_objects};

const FORGETFUL: Scene = Scene { seed: 13, records: 30, checkpoint_ms: 12, forgets_at_once: true, ..SCENE };

/// Links that are put so shortly before the last checkpoint may not be old when it looks.
const YOUNG_MS: i64 = 2;

/// What is below the folder of the job once everything has ended: links from the newest checkpoint on, what they name, and few
/// generations. With `swept` nobody has died since the last checkpoint, else a vacuum goes first.
async fn only_what_is_needed_is_there(world: &Arc<World>, slots: u32, swept: bool, context: &str) {
    let reader = Life::begin(world, 2 * LIVES_MAX, None);
    let mut named = BTreeSet::new();
    for slot in (0..slots).map(|slot| slot.to_string()) {
        let left = leftovers(&*reader, "sim", &slot).await.expect("memory answers");
        assert!(!swept || left.is_empty(), "{context}: {left:?}");
        world.look(|memory| left.iter().for_each(|path| memory.forget(path)));
        let newest = newest_epoch(&*reader, &slot).await.expect("memory answers").expect("an epoch");
        let checkpoint = newest.epoch().expect("an epoch").checkpoint;
        let numbers = link_numbers(&*reader, &slot).await.expect("memory answers");
        let mut objects = Vec::new();
        for n in numbers {
            let link = read_manifest(&*reader, &slot, n).await.expect("a link");
            let age_ms = newest.created_ms - link.created_ms;
            assert!(!swept || n >= checkpoint || age_ms <= YOUNG_MS, "{context}: link {n} is there, {age_ms} ms old");
            if let Some(epoch) = link.epoch().filter(|_| n >= checkpoint) {
                note_objects(&mut objects, n, epoch);
            }
        }
        named.extend(objects);
    }
    let is_needed =
        |path: &String| ["chains/", "lanes/"].iter().any(|folder| path.starts_with(folder)) || named.contains(path);
    let rest: Vec<String> = world.paths().into_iter().filter(|path| !is_needed(path)).collect();
    assert!(rest.is_empty(), "{context}: nothing names {rest:?}");
    assert!(named.iter().all(|path| world.paths().contains(path)), "{context}: something is gone");
}

#[test]
fn what_is_kept_does_not_grow() {
    let tally = Tally::default();
    each(12, |seed| {
        let scene = Scene { seed: 900 + seed as u64, records: 30 + 10 * (seed % 3), ..FORGETFUL };
        let script = Arc::new(Script::new(scene.seed, scene.lanes, scene.records));
        let context = format!("{scene:?}");
        simulate(&tally, &scene, false, async |world| {
            survive(world, &scene, &script, 1, |_| None).await;
            oracle::check(world, &script, &[ends(&script)], &context);
            the_chain_is_true(world, &context).await;
            only_what_is_needed_is_there(world, 1, true, &context).await;
        });
    });
    tally.had([Mishap::Retention]);
}

#[test]
fn a_crash_anywhere_leaves_nothing_that_stays() {
    let tally = Tally::default();
    let kinds = [FaultKind::CrashBefore, FaultKind::CrashAfter, FaultKind::AckLost, FaultKind::Unavailable];
    let operations = play(&tally, FORGETFUL, "no fault", |_| None);
    // Each second one: it takes long enough.
    each(usize::try_from(operations).expect("few operations") * kinds.len() / 2, |case| {
        let case = case * 2 + case / 2 % 2;
        let script = Arc::new(Script::new(FORGETFUL.seed, FORGETFUL.lanes, FORGETFUL.records));
        let fault = Fault { at: (case / kinds.len() + 1) as u64, kind: kinds[case % kinds.len()] };
        let context = format!("{FORGETFUL:?}, {fault:?}");
        simulate(&tally, &FORGETFUL, false, async |world| {
            survive(world, &FORGETFUL, &script, 1, |life| (life == 1).then_some(fault)).await;
            oracle::check(world, &script, &[ends(&script)], &context);
            the_chain_is_true(world, &context).await;
            only_what_is_needed_is_there(world, 1, false, &context).await;
        });
    });
    tally.had(kinds.map(FaultKind::mishap).into_iter().chain([Mishap::Retention]));
}

#[test]
fn several_slots_keep_only_what_they_need() {
    let tally = Tally::default();
    each(6, |seed| {
        let slots = 2 + u32::try_from(seed % 2).expect("few slots");
        let scene = Scene { seed: 950 + seed as u64, ..FORGETFUL };
        let script = Arc::new(script_of(&scene));
        let context = format!("{slots} slots, {scene:?}");
        simulate(&tally, &scene, false, async |world| {
            let fault = |slot, life| {
                let at = 20 + 7 * seed as u64 + u64::from(slot);
                (life == 1).then_some(Fault { at, kind: FaultKind::CrashAfter })
            };
            slots::play_in(slots, world, &scene, &script, &context, fault).await;
            only_what_is_needed_is_there(world, slots, false, &context).await;
        });
    });
    tally.had([Mishap::CrashAfter, Mishap::Retention]);
}

/// The other processes go on to the end and delete every link of the sleeper, and their own behind them. When it wakes, its number is
/// free.
#[test]
fn a_process_that_sleeps_until_its_links_are_gone_cannot_do_harm() {
    let tally = Tally::default();
    let found_free = AtomicUsize::new(0);
    each(120, |case| {
        let script = Arc::new(Script::new(FORGETFUL.seed, FORGETFUL.lanes, FORGETFUL.records));
        let fault = Fault { at: case as u64 + 1, kind: FaultKind::Pause };
        let context = format!("{FORGETFUL:?}, {fault:?}");
        simulate(&tally, &FORGETFUL, false, async |world| {
            let links =
                || world.paths().into_iter().filter(|path| path.starts_with("chains/")).collect::<BTreeSet<_>>();
            let old = Life::begin(world, 1, Some(fault));
            let first = async {
                let outcome = live(&FORGETFUL, &script, &old).await;
                old.paused.store(true, Ordering::SeqCst);
                outcome
            };
            let second = async {
                while !old.paused.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                survive(world, &FORGETFUL, &script, 2, |_| None).await;
                let before = links();
                old.released.store(true, Ordering::SeqCst);
                before
            };
            let (outcome, before) = futures::join!(first, second);
            if let Err(error) = outcome {
                // What it was about to read or to tell may be gone too.
                let kind = error.kind();
                assert!(kind == Kind::Fenced || kind == Kind::Data, "{context}: {error:?}");
            }
            // What it puts there counts for nothing; it comes to lie before the chain. One that has not read the chain before it
            // slept is a new process, and goes on behind the others.
            let newest = before.last().expect("a link");
            let put = links().difference(&before).filter(|path| *path < newest).count();
            found_free.fetch_add(put, Ordering::SeqCst);
            assert!(put <= 1, "{context}: it went on");
            oracle::check(world, &script, &[ends(&script)], &context);
            // The very first link says that none was deleted. That is not true of one that a sleeper has put; a next start takes it away.
            if !links().contains(&Manifest::path("0", 1)) {
                the_chain_is_true(world, &context).await;
            }
        });
    });
    assert!(found_free.load(Ordering::SeqCst) > 0, "nobody has found a number free that was used before");
    tally.had([Mishap::Pause, Mishap::Retention]);
}
