//! Hundreds of worlds at each run of the tests, thousands when asked for, each with all that its seed wants; and a seed twice, which
//! has to be one world.
//!
//! `WATTLINE_SEED` is the first seed and `WATTLINE_SEEDS` says how many worlds are played. With a seed alone only that one is:
//!
//! ```text
//! WATTLINE_SEED=4711 cargo test -p wattline-runtime thousands_of_worlds
//! WATTLINE_SEEDS=100000 cargo test --release -p wattline-runtime thousands_of_worlds
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::*;

/// Worlds that each run of the tests plays.
const WORLDS: u64 = 300;
/// Worlds that are played twice.
const TWICE: u64 = 24;

/// What a number from the environment says.
#[expect(clippy::disallowed_methods, reason = "which worlds a test plays is not a setting of the program")]
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// A world, as its seed wants it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fate {
    scene: Scene,
    slots: u32,
    expires: bool,
}

impl Fate {
    pub(super) fn of(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0xFA7E);
        let mut one_of = |choices: &[u64]| choices[usize::try_from(dice.below(choices.len() as u64)).unwrap_or(0)];
        let slots = u32::try_from(one_of(&[1, 1, 1, 1, 1, 2, 2, 3])).expect("few slots");
        let alone = slots == 1;
        let late_comers_from = (alone && one_of(&[0, 0, 0, 1]) == 1).then_some(2);
        let one_by_one = alone && late_comers_from.is_none() && one_of(&[0, 0, 0, 0, 1]) == 1;
        let mut scene = Scene {
            seed,
            lanes: usize::try_from(one_of(&[1, 2, 3, 4])).expect("few lanes"),
            records: usize::try_from(one_of(&[8, 12, 20, 30])).expect("few records"),
            records_per_block: one_of(&[1, 3, 8]),
            tick_ms: one_of(&[2, 3, 4, 6]),
            checkpoint_ms: one_of(&[8, 12, 20, 40, 80, 60_000]),
            correction_ms: one_of(&[0, 0, 40]),
            workers: usize::try_from(one_of(&[1, 2, 3])).expect("few workers"),
            // What slots tell each other is more than such a memory holds.
            is_crowded: alone && one_of(&[0, 0, 0, 0, 0, 1]) == 1,
            rebalances: one_of(&[0, 0, 1]) == 1,
            one_by_one,
            late_comers_from,
            ..SCENE
        };
        let expires = alone && late_comers_from.is_none() && !one_by_one && one_of(&[0, 0, 0, 0, 1]) == 1;
        scene.forgets_at_once = one_of(&[0, 0, 1]) == 1;
        // What was told holds as long as the log does, and as the next process has the same rules and finds the lanes that were there.
        scene.early = !expires && !one_by_one && late_comers_from.is_none() && one_of(&[0, 0, 1]) == 1;
        Self { scene, slots, expires }
    }

    /// The same, with another engine for its rules.
    pub(super) fn run_by(self, engine: Engine) -> Self {
        Self { scene: Scene { engine, ..self.scene }, ..self }
    }

    /// What goes wrong in a life. The later ones are spared, so that one of them comes to the end.
    fn faults(&self, slot: u32, life: u64) -> Vec<Fault> {
        use FaultKind::{AckLost, ClockAhead, ClockBack, CrashAfter, CrashBefore, Slow, Torn, Unavailable};
        const KINDS: [FaultKind; 9] =
            [CrashBefore, CrashAfter, CrashAfter, AckLost, Unavailable, Torn, Slow, ClockAhead, ClockBack];
        // What was told early holds as long as no clock is a minute behind the one before.
        let kinds = if self.scene.early { &KINDS[..7] } else { &KINDS[..] };
        if life > 6 {
            return Vec::new();
        }
        let mut dice = Dice::new(self.scene.seed.wrapping_mul(1_000_003) ^ (life << 8) ^ u64::from(slot));
        // Lanes of which no manifest knows are not waited for: then the first life sees them all.
        let mut at = if self.scene.one_by_one && life == 1 { 110 } else { 0 };
        let count = dice.below(5) + u64::from(self.scene.late_comers_from.is_some() && life == 1);
        let mut faults: Vec<Fault> = (0..count)
            .map(|_| {
                at += 1 + dice.below(24 + 8 * life);
                Fault { at, kind: kinds[usize::try_from(dice.below(kinds.len() as u64)).unwrap_or(0)] }
            })
            .collect();
        if self.scene.late_comers_from.is_some() && life == 1 {
            // So that there is a second one.
            faults.push(Fault { at: at + 1 + dice.below(60), kind: CrashBefore });
        }
        faults
    }

    /// Plays the world; gives what was done in it, if that is to be watched.
    fn play(&self, tally: &Tally, is_watched: bool) -> Vec<String> {
        let (scene, context) = (&self.scene, format!("WATTLINE_SEED={}, {self:?}", self.scene.seed));
        let mut script = script_of(scene);
        if self.expires {
            let first = script.lanes[0].records[scene.records * 3 / 4].offset;
            script.expiry = Some(Expiry { lane: 0, at: scene.records / 2, first, is_over: Arc::default() });
        }
        let script = Arc::new(script);
        simulate(tally, scene, is_watched, async |world| {
            match (self.slots, scene.late_comers_from) {
                (1, Some(from)) => {
                    let life = Life::begin(world, 1, self.faults(0, 1));
                    let outcome = live(scene, &script, &life).await;
                    assert!(outcome.is_ok() || life.is_dead(), "{context}: {outcome:?}");
                    survive(world, scene, &script, from, |life| self.faults(0, life)).await;
                }
                (1, None) => {
                    survive(world, scene, &script, 1, |life| self.faults(0, life)).await;
                }
                (slots, _) => {
                    slots::survive_in(slots, world, scene, &script, 1, |slot, life| self.faults(slot, life)).await;
                }
            }
            let trace = world.take_trace();
            if self.expires {
                oracle::check_with_gaps(world, &script, &context);
            } else {
                oracle::check(world, &script, &[ends(&script)], &context);
            }
            for slot in 0..self.slots {
                the_chain_of_is_true(&slot.to_string(), world, &context).await;
            }
            trace
        })
    }
}

/// Plays a world; a panic in it names the seed.
fn play_fate(fate: Fate, tally: &Tally, is_watched: bool) -> Vec<String> {
    let played = catch_unwind(AssertUnwindSafe(|| fate.play(tally, is_watched)));
    played.unwrap_or_else(|panic| {
        eprintln!("WATTLINE_SEED={} plays this world again: {fate:?}", fate.scene.seed);
        resume_unwind(panic)
    })
}

/// Plays as many worlds, or as many as the environment wants; gives what was done to them, and whether that may be little.
pub(super) fn play_worlds(worlds: u64, fate: impl Fn(u64) -> Fate + Sync) -> (Tally, bool) {
    let first = setting("WATTLINE_SEED");
    let count = setting("WATTLINE_SEEDS").unwrap_or(if first.is_some() { 1 } else { worlds });
    let (first, tally) = (first.unwrap_or(1), Tally::default());
    each(usize::try_from(count).expect("a number of worlds"), |case| {
        play_fate(fate(first + case as u64), &tally, false);
    });
    (tally, count < worlds)
}

#[test]
fn thousands_of_worlds_say_what_the_laws_say() {
    let (tally, are_few) = play_worlds(WORLDS, Fate::of);
    // A few worlds need not have them all.
    tally.had(Mishap::OF_WORLDS.into_iter().filter(|_| !are_few));
}

/// Where two lines begin to differ, with what is around it.
fn first_difference(once: Option<&String>, again: Option<&String>) -> String {
    let (Some(once), Some(again)) = (once, again) else { return format!("once:  {once:?}\nagain: {again:?}") };
    let at = once.chars().zip(again.chars()).position(|(once, again)| once != again).unwrap_or_default();
    let from = at.saturating_sub(300);
    let part = |line: &String| line.chars().skip(from).take(400).collect::<String>();
    format!("once:  …{}\nagain: …{}", part(once), part(again))
}

/// Plays each of so many worlds twice: both times the same is done. Gives what was done to them.
pub(super) fn play_twice(worlds: u64, fate: impl Fn(u64) -> Fate + Sync) -> Tally {
    let tally = Tally::default();
    let lengths = Mutex::new(BTreeMap::new());
    each(usize::try_from(worlds).expect("few"), |case| {
        let fate = fate(1 + case as u64);
        let (once, again) = (play_fate(fate, &tally, true), play_fate(fate, &tally, true));
        let differs = once.iter().zip(&again).position(|(once, again)| once != again);
        let differs = differs.or((once.len() != again.len()).then_some(once.len().min(again.len())));
        if let Some(at) = differs {
            let (before, seen) =
                (once[at.saturating_sub(3)..at].join("\n"), first_difference(once.get(at), again.get(at)));
            panic!("{fate:?}: line {at} differs\n{before}\n{seen}");
        }
        lengths.lock().unwrap_or_else(PoisonError::into_inner).insert(once.len(), once);
    });
    let lengths = lengths.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(lengths.keys().all(|length| *length > 30), "all that is done is written down");
    let apart = usize::try_from(worlds * 5 / 6).expect("few");
    assert!(lengths.len() > apart, "another seed is another world");
    tally
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let tally = play_twice(TWICE, Fate::of);
    tally.had([Mishap::CrashBefore, Mishap::CrashAfter, Mishap::AckLost, Mishap::Slow]);
}
