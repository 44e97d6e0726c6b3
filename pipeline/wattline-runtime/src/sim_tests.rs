//! Simulation: the real runtime against ports in plain memory, with all that can go wrong, as a function of a seed.
//!
//! Each test runs jobs to their end through any number of processes and then asserts the laws: every event in exactly
//! one table, windows and alerts as the raw table says, no file committed twice, no alert published twice.
//!
//! A world with all its processes and slots runs in one thread: the coordinators are tasks, the turns of sources and workers are given
//! out one at a time ([`turns`]), and the clock stands still until nobody has anything to do. So what happens, in which order and at
//! which time, is decided by the scene, its seed and its faults alone:
//!
//! | decided by the seed | how |
//! |---|---|
//! | what records there are, their times and defects | `script.rs`, once a world |
//! | when a source is polled, and which lane has how many records then | drawn at each poll |
//! | which of the parts that have something to do goes on | drawn at each turn |
//! | how long an operation of store, archive, alert topic and exchange takes | drawn at each |
//! | where something goes wrong, and what | the faults of a life, by the number of its operation |
//!
//! What is not simulated: threads that run at the very same time. What two of them share are counters and bounded queues.
//!
//! `WATTLINE_SEED` and `WATTLINE_SEEDS` (`seeds.rs`) say which worlds are played and how many; a world that fails names its seed.

mod clean_up;
mod early;
mod oracle;
mod restores;
mod rules;
mod script;
mod seeds;
mod slots;
mod sql;
mod sql_rules;
mod tally;
mod turns;
mod week;
mod world;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use wattline_core::error::Kind;
use wattline_core::exchange::Place;
use wattline_core::gap::OnGap;
use wattline_core::lane::TimeGuard;
use wattline_core::record::LaneId;
use wattline_core::time::BEFORE_TIME;

use crate::clock::Clock;
use crate::port::{Position, Source, SourceEvent};
use crate::progress::Progress;
use crate::verify::check_chain;
use crate::{Job, JobSettings, LaneMatch, Result, RunSummary, StreamPlan, run};
use oracle::Ends;
use script::{BEGIN_MS, BELIEVED_MS, CLOCK_AHEAD_MS, Dice, Expiry, PATIENCE_PER_LIFE_MS, Script, ScriptedSource};
use tally::{Mishap, Tally};
use turns::Turns;
use world::{Fault, FaultKind, Life, World};

/// No life may take longer, by the clock of its world: a hang is a failure, not a wait.
const LIFE_MAX: Duration = Duration::from_secs(120);
/// How far ahead of their clock events may be that come when their time has come.
const LIVE_BOUND_MS: i64 = 2 * 3_600_000;
const LIVES_MAX: u64 = 200;
/// Who runs the rules of a scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    /// The one of [`rules`].
    Plain,
    /// `wattline-sql`, with so many bytes of memory for what the rules keep, or as many as that takes.
    Sql(Option<usize>),
}

/// Next to nothing, and more than workers ever hold: they count groups.
const TOLD_BYTES: u64 = 20_000;

#[derive(Debug, Clone, Copy)]
struct Scene {
    seed: u64,
    lanes: usize,
    records: usize,
    records_per_block: u64,
    tick_ms: u64,
    checkpoint_ms: u64,
    correction_ms: u64,
    workers: usize,
    /// Whether the source assigns its lanes one by one.
    one_by_one: bool,
    /// Whether the first process has no time for a checkpoint at its pace, and the later ones make many.
    checkpoints_come_later: bool,
    /// Whether lanes go away from a process and come back to it.
    rebalances: bool,
    /// Whether the stream is to be read from its end, and has one lane only when it begins.
    grows: bool,
    /// Whether there is so little memory that sources are held back and checkpoints come early.
    is_crowded: bool,
    /// If records come when their time has come, the time from one of a lane to the next. Then clocks follow that of the world.
    live_step_ms: Option<i64>,
    /// The process from which on the rules are there that come later; they are there from the first on if this is absent.
    late_comers_from: Option<u64>,
    /// Whether links are old as soon as there is a checkpoint behind them, and each checkpoint cleans up.
    forgets_at_once: bool,
    /// Whether alerts that no late events correct are told before their link.
    early: bool,
    engine: Engine,
}

const SCENE: Scene = Scene {
    seed: 1,
    lanes: 3,
    records: 50,
    records_per_block: 8,
    tick_ms: 4,
    checkpoint_ms: 20,
    correction_ms: 0,
    workers: 2,
    one_by_one: false,
    checkpoints_come_later: false,
    rebalances: false,
    grows: false,
    is_crowded: false,
    live_step_ms: None,
    late_comers_from: None,
    forgets_at_once: false,
    early: false,
    engine: Engine::Plain,
};

#[derive(Debug)]
struct TestClock {
    began_ms: i64,
    began: Instant,
    set_ms: Arc<AtomicI64>,
}

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        let passed_ms = i64::try_from(self.began.elapsed().as_millis()).expect("a short life");
        self.began_ms + passed_ms + self.set_ms.load(Ordering::SeqCst)
    }
}

fn settings(scene: &Scene, life: &Life) -> JobSettings {
    let is_live = scene.live_step_ms.is_some();
    let hour = Duration::from_secs(3_600);
    let checkpoint_ms = match (scene.checkpoints_come_later, life.number) {
        (false, _) => scene.checkpoint_ms,
        (true, 1) => 60_000,
        (true, _) => 2,
    };
    let (manifest_retention, maintenance) = match (scene.forgets_at_once, is_live) {
        (true, _) => (Duration::ZERO, Duration::ZERO),
        (false, true) => (hour * 6, hour / 2),
        (false, false) => (hour, hour),
    };
    JobSettings {
        job: "sim".into(),
        slot: life.slot.to_string(),
        nonce: format!("life-{}", life.number),
        tick: Duration::from_millis(scene.tick_ms),
        look: Duration::from_millis(scene.tick_ms),
        checkpoint: Duration::from_millis(checkpoint_ms),
        checkpoint_bytes: if scene.is_crowded { 4 << 10 } else { u64::MAX },
        buffered_bytes_max: if scene.is_crowded { 16 << 10 } else { u64::MAX },
        // What slots tell of a rule that waits for its past is kept up to there.
        state_bytes: if scene.seed.is_multiple_of(3) { TOLD_BYTES } else { u64::MAX },
        file_age: Duration::from_millis(scene.checkpoint_ms * 2),
        file_bytes: 1 << 20,
        results_bytes: [1, 4 << 10, 1 << 20][usize::try_from(scene.seed % 3).unwrap_or_default()],
        object_bytes: if scene.seed.is_multiple_of(2) { 1 } else { 1 << 20 },
        manifest_retention,
        maintenance,
        correction: Duration::from_millis(scene.correction_ms),
        references: Duration::from_millis(scene.checkpoint_ms),
    }
}

fn job(
    scene: &Scene,
    script: &Arc<Script>,
    life: &Arc<Life>,
    place: Option<Place>,
    shutdown: watch::Receiver<bool>,
) -> Job {
    let patience_ms = i64::try_from(life.number).expect("few lives") * PATIENCE_PER_LIFE_MS;
    let (is_live, set_ms) = (scene.live_step_ms.is_some(), Arc::clone(&life.clock_set_ms));
    let began_ms = BEGIN_MS + if is_live { life.world.age_ms() } else { CLOCK_AHEAD_MS + patience_ms };
    let bound_ms = if is_live { LIVE_BOUND_MS } else { BELIEVED_MS - CLOCK_AHEAD_MS };
    let clock: Arc<dyn Clock> = Arc::new(TestClock { began_ms, began: Instant::now(), set_ms });
    let source = match place {
        None => Box::new(ScriptedSource::new(scene, script, life, Arc::clone(&clock))) as Box<dyn Source>,
        Some(place) => slots::source(scene, script, life, place, &clock),
    };
    if scene.late_comers_from == Some(life.number) {
        life.world.tally.count(Mishap::LateRules);
    }
    let rules = rules_of(scene, life, place);
    let first = (rules.programs)();
    Job {
        settings: settings(scene, life),
        streams: vec![StreamPlan {
            name: "readings".into(),
            schema: rules::schema(),
            event_time: "ts".into(),
            guard: TimeGuard { future_bound_ms: bound_ms, oldest_us: BEFORE_TIME },
            idle_timeout: if is_live { Duration::from_secs(300) } else { Duration::from_millis(5) },
            start: if scene.grows { Position::Latest } else { Position::Earliest },
            on_gap: OnGap::Record,
            lanes: LaneMatch::Topic("readings".into()),
            table: Some(rules::raw_table()),
        }],
        rules: rules::told_early(scene.early, rules.plans),
        states: rules.states,
        references: BTreeMap::new(),
        reference_tables: Some(Box::new(rules::Registers::new(rules.programs))),
        sources: vec![source],
        decoders: Box::new(|_| Box::new(rules::TextDecoder)),
        lane_programs: first.lane_programs,
        final_program: first.final_program,
        programs: first.programs,
        store: Arc::clone(life) as _,
        archive: Arc::clone(life) as _,
        alert_sink: Some(Arc::clone(life) as _),
        exchange: place.map(|place| slots::exchange(life, place)),
        clock,
        threads: Arc::clone(&life.world.turns) as _,
        progress: Arc::new(Progress::default()),
        shutdown,
    }
}

/// The rules of a process, by the engine that the scene wants.
fn rules_of(scene: &Scene, life: &Life, place: Option<Place>) -> rules::LifeRules {
    let late_comers = scene.late_comers_from.map(|from| life.number >= from);
    match scene.engine {
        Engine::Plain => rules::life_rules(scene.workers, place, late_comers),
        Engine::Sql(bytes) => sql_rules::life_rules(scene.workers, place, late_comers, bytes, &life.world.tally),
    }
}

/// Runs one process to its end.
async fn live(scene: &Scene, script: &Arc<Script>, life: &Arc<Life>) -> Result<RunSummary> {
    live_at(scene, script, life, None).await
}

async fn live_at(scene: &Scene, script: &Arc<Script>, life: &Arc<Life>, place: Option<Place>) -> Result<RunSummary> {
    let (_keep, shutdown) = watch::channel(false);
    live_until(scene, script, life, place, shutdown).await
}

/// The same, unless it is told to stop.
async fn live_until(
    scene: &Scene,
    script: &Arc<Script>,
    life: &Arc<Life>,
    place: Option<Place>,
    shutdown: watch::Receiver<bool>,
) -> Result<RunSummary> {
    let job = job(scene, script, life, place, shutdown);
    let most = if scene.live_step_ms.is_some() { week::AT_MOST } else { LIFE_MAX };
    let outcome = tokio::time::timeout(most, Box::pin(run(job))).await;
    outcome.unwrap_or_else(|_| panic!("{scene:?}: life {} hangs", life.number))
}

/// Runs processes until one reads the input to its end; gives the number of operations of the first.
async fn survive<F: IntoIterator<Item = Fault>>(
    world: &Arc<World>,
    scene: &Scene,
    script: &Arc<Script>,
    first_life: u64,
    faults: impl Fn(u64) -> F,
) -> u64 {
    survive_at(None, world, scene, script, first_life, faults).await
}

/// As [`survive`], for one slot of several.
async fn survive_at<F: IntoIterator<Item = Fault>>(
    place: Option<Place>,
    world: &Arc<World>,
    scene: &Scene,
    script: &Arc<Script>,
    first_life: u64,
    faults: impl Fn(u64) -> F,
) -> u64 {
    let mut operations = None;
    let slot = place.map_or(0, |place| place.slot);
    for number in first_life..first_life + LIVES_MAX {
        let life = Life::begin_in(slot, world, number, faults(number));
        let outcome = live_at(scene, script, &life, place).await;
        operations.get_or_insert_with(|| life.operations());
        match outcome {
            Ok(summary) => {
                assert!(summary.ended, "{scene:?}: nobody asked it to stop");
                return operations.unwrap_or_default();
            }
            Err(error) => {
                // One that lives beside it may go on, and delete what it has just put.
                let has_company = scene.forgets_at_once && first_life > 1 && world.tally.of(Mishap::Pause) > 0;
                let is_put_out = has_company && error.kind() == Kind::Fenced;
                assert!(
                    life.is_dead() || is_put_out,
                    "{scene:?}: {place:?}, life {number}, {:?}: {error:?}",
                    life.faults
                );
            }
        }
    }
    panic!("{scene:?}: no process of {place:?} came to the end");
}

fn ends(script: &Script) -> Ends {
    script.lanes.iter().map(script::LaneScript::end).collect()
}

/// What the chain says of itself is true, and the next start would find what it needs.
async fn the_chain_is_true(world: &Arc<World>, context: &str) {
    the_chain_of_is_true("0", world, context).await;
}

async fn the_chain_of_is_true(slot: &str, world: &Arc<World>, context: &str) {
    let reader = Life::begin(world, 2 * LIVES_MAX, None);
    let report = check_chain(&*reader, "sim", slot).await.expect("memory answers");
    assert!(report.links > 0 && report.problems.is_empty(), "{context}: {:#?}", report.problems);
}

/// Runs all that happens in one world: in this thread, and as the seed of the scene wants.
fn simulate<T>(tally: &Tally, scene: &Scene, is_watched: bool, play: impl AsyncFnOnce(&Arc<World>) -> T) -> T {
    let turns = Turns::new(scene.seed, scene.live_step_ms.map_or(Duration::from_millis(1), |_| week::REST));
    let idle = Arc::clone(&turns);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).on_thread_park(move || idle.give_one());
    let runtime = runtime.build().expect("a runtime");
    runtime.block_on(async { play(&World::begin(tally, &turns, is_watched)).await })
}

fn script_of(scene: &Scene) -> Script {
    let mut script = Script::new(scene.seed, scene.lanes, scene.records);
    script.one_by_one = scene.one_by_one || scene.grows;
    // They are assigned from the last to the first.
    script.begins_with = scene.grows.then(|| scene.lanes - 1);
    script
}

/// One world, from the beginning to the end; gives the operations of the first process.
fn play<F: IntoIterator<Item = Fault>>(tally: &Tally, scene: Scene, context: &str, faults: impl Fn(u64) -> F) -> u64 {
    let script = Arc::new(script_of(&scene));
    simulate(tally, &scene, false, async |world| {
        let operations = survive(world, &scene, &script, 1, faults).await;
        oracle::check(world, &script, &[ends(&script)], context);
        the_chain_is_true(world, context).await;
        operations
    })
}

/// Runs the numbered cases on all cores; a panic in one fails the test.
fn each(cases: usize, case: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let this = next.fetch_add(1, Ordering::SeqCst);
                    if this >= cases {
                        break;
                    }
                    case(this);
                }
            });
        }
    });
}

/// Puts one fault at every operation of the first process.
fn at_every_operation(scene: Scene, kinds: &[FaultKind]) {
    at_operations(scene, kinds, 1);
}

/// With a fault of each kind at each operation, or only every so many of these.
fn at_operations(scene: Scene, kinds: &[FaultKind], every: usize) {
    let tally = Tally::default();
    let operations = play(&tally, scene, "no fault", |_| None);
    each(usize::try_from(operations).expect("few operations") * kinds.len() / every, |case| {
        let case = case * every + case % every;
        let fault = Fault { at: (case / kinds.len() + 1) as u64, kind: kinds[case % kinds.len()] };
        let context = format!("{scene:?}, {fault:?}");
        play(&tally, scene, &context, |life| (life == 1).then_some(fault));
    });
    tally.had(kinds.iter().map(|kind| kind.mishap()).chain(scene.early.then_some(Mishap::ToldEarly)));
    for kind in kinds.iter().filter(|kind| **kind != FaultKind::Torn) {
        let had = tally.of(kind.mishap());
        assert!(had >= operations / every as u64, "{kind:?} {had} times in {operations} operations");
    }
}

#[test]
fn without_faults_the_tables_hold_what_the_laws_say() {
    let tally = Tally::default();
    each(12, |seed| {
        let scene = Scene { seed: seed as u64, workers: 1 + seed % 3, lanes: 1 + seed % 4, ..SCENE };
        play(&tally, scene, &format!("{scene:?}"), |_| None);
    });
    tally.had([]);
}

#[test]
fn a_crash_before_or_after_any_operation_changes_nothing() {
    at_every_operation(SCENE, &[FaultKind::CrashBefore, FaultKind::CrashAfter]);
}

#[test]
fn a_crash_changes_nothing_where_most_epochs_are_ticks() {
    let scene = Scene { seed: 5, tick_ms: 3, checkpoint_ms: 60_000, records: 40, ..SCENE };
    at_every_operation(scene, &[FaultKind::CrashBefore, FaultKind::CrashAfter]);
}

#[test]
fn a_lost_acknowledgement_or_a_refusal_changes_nothing() {
    let scene = Scene { seed: 2, checkpoint_ms: 40, ..SCENE };
    at_every_operation(scene, &[FaultKind::AckLost, FaultKind::Unavailable]);
}

#[test]
fn crash_after_crash_changes_nothing() {
    let tally = Tally::default();
    each(36, |seed| {
        let (checkpoint_ms, correction_ms) = ([10, 25, 80][seed % 3], [0, 40][seed % 2]);
        let scene = Scene { seed: 100 + seed as u64, checkpoint_ms, correction_ms, ..SCENE };
        play(&tally, scene, &format!("{scene:?}"), |life| {
            let mut dice = Dice::new(scene.seed * 1_000 + life);
            let kind = [FaultKind::CrashBefore, FaultKind::CrashAfter][usize::from(dice.below(2) == 1)];
            // Later lives live longer, so that some life comes to the end.
            Some(Fault { at: 5 + dice.below(20 + life * 6), kind })
        });
    });
    tally.had([Mishap::CrashBefore, Mishap::CrashAfter]);
}

#[test]
fn input_that_goes_on_after_its_end_is_computed_alone() {
    let tally = Tally::default();
    let kinds = [FaultKind::CrashBefore, FaultKind::CrashAfter];
    let scene = Scene { seed: 7, records: 24, checkpoint_ms: 30, ..SCENE };
    each(80, |case| {
        let mut script = Script::new(scene.seed, scene.lanes, scene.records);
        simulate(&tally, &scene, false, async |world| {
            survive(world, &scene, &Arc::new(script.clone()), 1, |_| None).await;
            let first = ends(&script);
            script.extend(&mut Dice::new(70), scene.records);
            let script = Arc::new(script);
            let fault = Fault { at: (case / 2 + 1) as u64, kind: kinds[case % 2] };
            survive(world, &scene, &script, 2, |life| (life == 2).then_some(fault)).await;
            let context = format!("{scene:?}, {fault:?}");
            oracle::check(world, &script, &[first, ends(&script)], &context);
            the_chain_is_true(world, &context).await;
        });
    });
    tally.had([Mishap::CrashBefore, Mishap::CrashAfter]);
}

/// The first process dies somewhere; the next has rules that are new and are given their past, and a fault somewhere.
fn rules_come_later(cases: usize, scene: Scene, kinds: &[FaultKind]) {
    let tally = Tally::default();
    let scene = Scene { late_comers_from: Some(2), ..scene };
    each(cases, |case| {
        let mut dice = Dice::new(scene.seed * 1_000 + case as u64);
        let first = Fault { at: 20 + dice.below(60), kind: FaultKind::CrashBefore };
        let fault = Fault { at: 1 + case as u64 / kinds.len() as u64 * 3, kind: kinds[case % kinds.len()] };
        let context = format!("{scene:?}, {first:?}, {fault:?}");
        let script = Arc::new(Script::new(scene.seed, scene.lanes, scene.records));
        simulate(&tally, &scene, false, async |world| {
            let life = Life::begin(world, 1, Some(first));
            // It may have come to the end before.
            let outcome = live(&scene, &script, &life).await;
            assert!(outcome.is_ok() || life.is_dead(), "{context}: {outcome:?}");
            survive(world, &scene, &script, 2, |life| (life == 2).then_some(fault)).await;
            oracle::check(world, &script, &[ends(&script)], &context);
            the_chain_is_true(world, &context).await;
        });
    });
    tally.had(kinds.iter().map(|kind| kind.mishap()).chain([Mishap::LateRules]));
}

#[test]
fn rules_that_come_later_are_given_their_past_whatever_happens() {
    rules_come_later(100, SCENE, &[FaultKind::CrashBefore, FaultKind::CrashAfter]);
}

#[test]
fn rules_that_come_later_are_given_their_past_through_faults_of_the_store() {
    let scene = Scene { seed: 11, checkpoint_ms: 12, correction_ms: 30, ..SCENE };
    rules_come_later(100, scene, &[FaultKind::AckLost, FaultKind::Unavailable]);
}

#[test]
fn rules_that_come_when_all_input_has_ended_are_given_their_past() {
    let tally = Tally::default();
    each(24, |case| {
        let scene = Scene { seed: 600 + case as u64, late_comers_from: Some(2), ..SCENE };
        let script = Arc::new(Script::new(scene.seed, scene.lanes, scene.records));
        simulate(&tally, &scene, false, async |world| {
            survive(world, &scene, &script, 1, |_| None).await;
            let fault = Fault { at: 1 + case as u64, kind: FaultKind::CrashAfter };
            survive(world, &scene, &script, 2, |life| (life == 2).then_some(fault)).await;
            let context = format!("{scene:?}, {fault:?}");
            oracle::check(world, &script, &[ends(&script)], &context);
            the_chain_is_true(world, &context).await;
        });
    });
    tally.had([Mishap::CrashAfter, Mishap::LateRules]);
}

#[test]
fn lanes_that_come_one_by_one_change_nothing() {
    let tally = Tally::default();
    each(80, |case| {
        let lanes = Scene { one_by_one: true, lanes: 4, records: 30, records_per_block: 3, ..SCENE };
        let scene = Scene { seed: 300 + case as u64, checkpoints_come_later: case >= 40, ..lanes };
        play(&tally, scene, &format!("{scene:?}"), |life| {
            // Lanes of which no manifest knows are not waited for: the first life sees them all.
            let least = match (life, scene.checkpoints_come_later) {
                (1, _) => 90,
                (_, false) => 8,
                (_, true) => 30,
            };
            let at = least + Dice::new(scene.seed + life).below(30);
            (life <= 3).then_some(Fault { at, kind: FaultKind::CrashBefore })
        });
    });
    tally.had([Mishap::CrashBefore, Mishap::LateLane]);
}

#[test]
fn a_partition_that_comes_to_a_running_stream_is_read_from_its_beginning() {
    let tally = Tally::default();
    each(12, |seed| {
        let scene = Scene { seed: 500 + seed as u64, lanes: 2 + seed % 3, grows: true, ..SCENE };
        play(&tally, scene, &format!("{scene:?}"), |_| None);
    });
    tally.had([Mishap::LateLane]);
}

#[test]
fn a_partition_that_came_between_two_processes_is_read_from_its_beginning() {
    let tally = Tally::default();
    let scene = Scene { seed: 7, records: 24, checkpoint_ms: 30, grows: true, ..SCENE };
    let mut script = Script::new(scene.seed, scene.lanes, scene.records * 2);
    script.begins_with = Some(0);
    script.lanes[0].records.truncate(scene.records);
    // The events of the others are later.
    script.lanes[1..].iter_mut().for_each(|lane| drop(lane.records.drain(..scene.records)));
    let mut before = script.clone();
    before.lanes.truncate(1);
    simulate(&tally, &scene, false, async |world| {
        survive(world, &scene, &Arc::new(before.clone()), 1, |_| None).await;
        survive(world, &scene, &Arc::new(script.clone()), 2, |_| None).await;
        let mut first = ends(&before);
        first.resize(script.lanes.len(), 0);
        let context = format!("{scene:?}");
        oracle::check(world, &script, &[first, ends(&script)], &context);
        the_chain_is_true(world, &context).await;
    });
}

/// A source that cannot locate one of its lanes until it wakes.
struct Sleepy {
    of: Box<dyn Source>,
    lane: LaneId,
    wakes: bool,
    /// Where that lane was to begin.
    started: Arc<Mutex<Vec<Position>>>,
}

impl Source for Sleepy {
    fn poll(&mut self, max_wait: Duration) -> Result<Vec<SourceEvent>> {
        self.of.poll(max_wait)
    }

    fn start(&mut self, lane: &LaneId, position: Position, log: Option<&str>) -> Result<()> {
        if *lane == self.lane {
            self.started.lock().unwrap_or_else(PoisonError::into_inner).push(position);
            if !self.wakes {
                return Ok(());
            }
        }
        self.of.start(lane, position, log)
    }

    fn set_paused(&mut self, paused: bool) -> Result<()> {
        self.of.set_paused(paused)
    }

    fn report_published(&mut self, positions: &[(LaneId, i64)]) {
        self.of.report_published(positions);
    }

    fn lag(&self) -> Option<u64> {
        None
    }
}

#[test]
fn a_lane_without_a_leader_at_the_first_start_begins_at_the_time_of_that_start() {
    let tally = Tally::default();
    let scene = Scene { seed: 7, records: 24, ..SCENE };
    let script = Arc::new(Script::new(scene.seed, scene.lanes, scene.records));
    let started: Arc<Mutex<Vec<Position>>> = Arc::default();
    let positions = || started.lock().unwrap_or_else(PoisonError::into_inner).clone();
    simulate(&tally, &scene, false, async |world| {
        for number in [1, 2] {
            let life = Life::begin(world, number, None);
            let (stop, shutdown) = watch::channel(false);
            let mut job = job(&scene, &script, &life, None, shutdown);
            job.streams[0].start = Position::Latest;
            let lane = script.lanes[1].id.clone();
            let sleepy = |of| Sleepy { of, lane: lane.clone(), wakes: number == 2, started: Arc::clone(&started) };
            job.sources = job.sources.into_iter().map(|of| Box::new(sleepy(of)) as _).collect();
            let stopped = async {
                while number == 2 || positions().is_empty() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                // The others may begin meanwhile.
                tokio::time::sleep(Duration::from_millis(100)).await;
                stop.send_replace(true);
                std::future::pending::<()>().await;
            };
            let outcome = tokio::select! {
                biased;
                outcome = tokio::time::timeout(LIFE_MAX, Box::pin(run(job))) => outcome.expect("no hang"),
                () = stopped => unreachable!("it waits for ever"),
            };
            assert_eq!(outcome.expect("no fault").ended, number == 2);
        }
        the_chain_is_true(world, "a lane that was waited for").await;
    });
    let began_ms = BEGIN_MS + CLOCK_AHEAD_MS + PATIENCE_PER_LIFE_MS;
    let [Position::Latest, Position::Timestamp(from_ms)] = positions()[..] else { panic!("{:?}", positions()) };
    assert!(
        (began_ms..began_ms + PATIENCE_PER_LIFE_MS).contains(&from_ms),
        "the clock of the first process: {from_ms}"
    );
}

/// A script whose first lane loses its beginning once it was read as far as to this record.
fn expiring(scene: &Scene, at: usize) -> Arc<Script> {
    let mut script = Script::new(scene.seed, scene.lanes, scene.records);
    let first = script.lanes[0].records[scene.records * 3 / 4].offset;
    script.expiry = Some(Expiry { lane: 0, at, first, is_over: Arc::default() });
    Arc::new(script)
}

#[test]
fn offsets_that_are_gone_are_recorded_once_wherever_a_process_dies() {
    let tally = Tally::default();
    let kinds = [FaultKind::CrashBefore, FaultKind::CrashAfter];
    // Where most epochs are ticks, records that were read before are gone too.
    let scenes = [SCENE, Scene { seed: 5, tick_ms: 3, checkpoint_ms: 60_000, records: 40, ..SCENE }];
    each(scenes.len() * 120, |case| {
        let (scene, case) = (scenes[case % scenes.len()], case / scenes.len());
        let script = expiring(&scene, [1, scene.records / 2][case % 2]);
        let fault = Fault { at: (case / 4 + 1) as u64, kind: kinds[case / 2 % 2] };
        let context = format!("{scene:?}, {fault:?}, {:?}", script.expiry);
        simulate(&tally, &scene, false, async |world| {
            survive(world, &scene, &script, 1, |life| (life == 1).then_some(fault)).await;
            let gone = oracle::check_with_gaps(world, &script, &context);
            assert!(gone > 0, "{context}: nothing was lost");
            the_chain_is_true(world, &context).await;
        });
    });
    tally.had([Mishap::CrashBefore, Mishap::CrashAfter, Mishap::Expiry]);
}

#[test]
fn a_process_that_was_taken_for_dead_cannot_do_harm() {
    let tally = Tally::default();
    let scene = Scene { seed: 9, checkpoint_ms: 15, records: 30, ..SCENE };
    each(90, |case| {
        let script = Arc::new(Script::new(scene.seed, scene.lanes, scene.records));
        let fault = Fault { at: case as u64 + 1, kind: FaultKind::Pause };
        let context = format!("{scene:?}, {fault:?}");
        simulate(&tally, &scene, false, async |world| {
            let old = Life::begin(world, 1, Some(fault));
            let first = async {
                let outcome = live(&scene, &script, &old).await;
                old.paused.store(true, Ordering::SeqCst);
                outcome
            };
            let second = async {
                while !old.paused.load(Ordering::SeqCst) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                survive(world, &scene, &script, 2, |_| None).await;
                old.released.store(true, Ordering::SeqCst);
            };
            let (outcome, ()) = futures::join!(first, second);
            if let Err(error) = outcome {
                assert_eq!(error.kind(), Kind::Fenced, "{context}: {error:?}");
            }
            oracle::check(world, &script, &[ends(&script)], &context);
            the_chain_is_true(world, &context).await;
        });
    });
    tally.had([Mishap::Pause]);
}
