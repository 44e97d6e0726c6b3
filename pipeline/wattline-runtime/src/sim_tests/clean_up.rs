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

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

/// What is below the folder of the job once everything has ended: links from the newest checkpoint on, what they name, and few
/// generations. With `swept` nobody has died since the last checkpoint, else a vacuum goes first.
fn only_what_is_needed_is_there(world: &Arc<World>, slots: u32, swept: bool, context: &str) {
    let reader = Life::begin(world, 2 * LIVES_MAX, None);
    let mut named = BTreeSet::new();
    for slot in (0..slots).map(|slot| slot.to_string()) {
        let left = block_on(leftovers(&*reader, "sim", &slot)).expect("memory answers");
        assert!(!swept || left.is_empty(), "{context}: {left:?}");
        world.look(|memory| left.iter().for_each(|path| memory.forget(path)));
        let newest = block_on(newest_epoch(&*reader, &slot)).expect("memory answers").expect("an epoch");
        let checkpoint = newest.epoch().expect("an epoch").checkpoint;
        let numbers = block_on(link_numbers(&*reader, &slot)).expect("memory answers");
        let mut objects = Vec::new();
        for n in numbers {
            let link = block_on(read_manifest(&*reader, &slot, n)).expect("a link");
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
    let rest: Vec<String> = world.objects().into_iter().filter(|path| !is_needed(path)).collect();
    assert!(rest.is_empty(), "{context}: nothing names {rest:?}");
    assert!(named.iter().all(|path| world.objects().contains(path)), "{context}: something is gone");
}

#[test]
fn what_is_kept_does_not_grow() {
    each(12, |seed| {
        let scene = Scene { seed: 900 + seed as u64, records: 30 + 10 * (seed % 3), ..FORGETFUL };
        let script = Arc::new(Script::new(scene.seed, scene.lanes, scene.records));
        let world = Arc::new(World::default());
        let context = format!("{scene:?}");
        survive(&world, &scene, &script, 1, |_| None);
        oracle::check(&world, &script, &[ends(&script)], &context);
        the_chain_is_true(&world, &context);
        only_what_is_needed_is_there(&world, 1, true, &context);
    });
}

#[test]
fn a_crash_anywhere_leaves_nothing_that_stays() {
    let kinds = [FaultKind::CrashBefore, FaultKind::CrashAfter, FaultKind::AckLost, FaultKind::Unavailable];
    let script = Arc::new(Script::new(FORGETFUL.seed, FORGETFUL.lanes, FORGETFUL.records));
    let operations = survive(&Arc::default(), &FORGETFUL, &script, 1, |_| None);
    // Each second one: it takes long enough.
    each(usize::try_from(operations).expect("few operations") * kinds.len() / 2, |case| {
        let case = case * 2 + case % 2;
        let world = Arc::new(World::default());
        let fault = Fault { at: (case / kinds.len() + 1) as u64, kind: kinds[case % kinds.len()] };
        let context = format!("{FORGETFUL:?}, {fault:?}");
        survive(&world, &FORGETFUL, &script, 1, |life| (life == 1).then_some(fault));
        oracle::check(&world, &script, &[ends(&script)], &context);
        the_chain_is_true(&world, &context);
        only_what_is_needed_is_there(&world, 1, false, &context);
    });
}

#[test]
fn several_slots_keep_only_what_they_need() {
    each(6, |seed| {
        let slots = 2 + u32::try_from(seed % 2).expect("few slots");
        let scene = Scene { seed: 950 + seed as u64, ..FORGETFUL };
        let world = slots::play_at(slots, scene, &format!("{slots} slots, {scene:?}"), |slot, life| {
            let at = 20 + 7 * seed as u64 + u64::from(slot);
            (life == 1).then_some(Fault { at, kind: FaultKind::CrashAfter })
        })
        .1;
        only_what_is_needed_is_there(&world, slots, false, &format!("{slots} slots, {scene:?}"));
    });
}

/// The other processes go on to the end and delete every link of the sleeper, and their own behind them. When it wakes, its number is
/// free.
#[test]
fn a_process_that_sleeps_until_its_links_are_gone_cannot_do_harm() {
    let found_free = AtomicUsize::new(0);
    each(120, |case| {
        let script = Arc::new(Script::new(FORGETFUL.seed, FORGETFUL.lanes, FORGETFUL.records));
        let world = Arc::new(World::default());
        let fault = Fault { at: case as u64 + 1, kind: FaultKind::Pause };
        let context = format!("{FORGETFUL:?}, {fault:?}");
        let old = Life::begin(&world, 1, Some(fault));
        std::thread::scope(|scope| {
            let first = scope.spawn(|| live(&FORGETFUL, &script, &old));
            while !old.paused.load(Ordering::SeqCst) && !first.is_finished() {
                std::thread::yield_now();
            }
            survive(&world, &FORGETFUL, &script, 2, |_| None);
            let links =
                || world.objects().into_iter().filter(|path| path.starts_with("chains/")).collect::<BTreeSet<_>>();
            let before = links();
            old.released.store(true, Ordering::SeqCst);
            if let Err(error) = first.join().expect("the old process does not panic") {
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
        });
        oracle::check(&world, &script, &[ends(&script)], &context);
        // The very first link says that none was deleted. That is not true of one that a sleeper has put; a next start takes it away.
        if !world.objects().contains(&Manifest::path("0", 1)) {
            the_chain_is_true(&world, &context);
        }
    });
    assert!(found_free.load(Ordering::SeqCst) > 0, "nobody has found a number free that was used before");
}
