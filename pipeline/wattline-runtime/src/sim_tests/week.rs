//! A week of a job: records come when their time has come, and everything that can go wrong does, again and again.
//!
//! Beside the laws it asserts that what is kept does not grow with time: what a process could read at its start, and what it holds.

use super::*;

/// How long sources rest between two polls, about.
pub(super) const REST: Duration = Duration::from_secs(60);
/// No life takes longer than the week.
pub(super) const AT_MOST: Duration = Duration::from_secs(9 * 86_400);
const DAY_MS: i64 = 86_400_000;
const STEP_MS: i64 = 600_000;
/// Links are kept for six hours, and from the newest checkpoint on, which comes every half an hour: a link for each tick of two minutes.
const LINKS_MAX: usize = 195;

/// What the store of a job held when one of its processes had died.
#[derive(Debug, Clone, Copy)]
struct Kept {
    age_ms: i64,
    lives: usize,
    links: usize,
    objects: usize,
    /// Of the newest link, and of what it names.
    named: usize,
    named_bytes: usize,
}

async fn kept(world: &Arc<World>, lives: u64) -> Kept {
    let reader = Life::begin(world, lives, None);
    let last = crate::snapshot::newest_link(&*reader, "0", None).await.expect("memory answers");
    let end = crate::snapshot::read_end(&*reader, "sim", "0", last).await.expect("memory answers").expect("a link");
    let size = |path: &String| world.objects(path).1;
    Kept {
        age_ms: world.age_ms(),
        lives: usize::try_from(lives).expect("few lives"),
        links: world.objects("chains/").0,
        objects: ["state/", "stages/", "rows/", "alert-state/"].map(|folder| world.objects(folder).0).iter().sum(),
        named: end.objects.len(),
        named_bytes: end.objects.iter().map(size).sum(),
    }
}

/// What goes wrong in a life of the week, and a crash at its end.
fn faults(dice: &mut Dice) -> Vec<Fault> {
    use FaultKind::{AckLost, ClockAhead, ClockBack, CrashAfter, CrashBefore, Slow, Torn, Unavailable};
    let (mut at, mut faults) = (0, Vec::new());
    for _ in 0..12 {
        at += 1 + dice.below(40);
        let kinds = [AckLost, Unavailable, Torn, Slow, ClockAhead, ClockBack];
        faults.push(Fault { at, kind: kinds[usize::try_from(dice.below(6)).unwrap_or(0)] });
    }
    let kind = [CrashBefore, CrashAfter][usize::from(dice.below(2) == 1)];
    faults.push(Fault { at: at + 1 + dice.below(40), kind });
    faults
}

#[test]
fn a_week_of_everything_keeps_the_laws_and_does_not_grow() {
    let tally = Tally::default();
    let scene = Scene {
        seed: 7,
        records: usize::try_from(7 * DAY_MS / STEP_MS).expect("few records"),
        tick_ms: 120_000,
        checkpoint_ms: 1_800_000,
        correction_ms: 6 * 3_600_000,
        rebalances: true,
        live_step_ms: Some(STEP_MS),
        ..SCENE
    };
    let script = Arc::new(Script::live(scene.seed, scene.lanes, scene.records, STEP_MS));
    let samples = simulate(&tally, &scene, false, async |world| {
        let (mut dice, mut samples) = (Dice::new(scene.seed), Vec::new());
        for number in 1.. {
            let life = Life::begin(world, number, faults(&mut dice));
            let outcome = live(&scene, &script, &life).await;
            if world.objects("chains/").0 > 0 {
                samples.push(kept(world, number).await);
            }
            match outcome {
                Ok(summary) => {
                    assert!(summary.ended, "nobody asked it to stop");
                    break;
                }
                Err(error) => assert!(life.is_dead(), "life {number}, {:?}: {error:?}", life.faults),
            }
            // Nobody starts it again at once.
            tokio::time::sleep(Duration::from_secs(60 * dice.below(40))).await;
        }
        assert!(world.age_ms() >= 7 * DAY_MS, "a week has passed");
        oracle::check(world, &script, &[ends(&script)], "a week");
        the_chain_is_true(world, "a week").await;
        samples
    });
    nothing_grows(&samples);
    use Mishap::*;
    tally.had([CrashBefore, CrashAfter, AckLost, Unavailable, Torn, Slow, ClockAhead, ClockBack, Rebalance, Retention]);
}

/// What there is on the last days is no more than what there was on the first ones; but each crash may leave a few objects that no
/// link names.
fn nothing_grows(samples: &[Kept]) {
    let most = |days: std::ops::Range<i64>, of: fn(&Kept) -> usize| {
        let within = samples.iter().filter(|kept| days.contains(&(kept.age_ms / DAY_MS)));
        within.map(of).max().unwrap_or_else(|| panic!("a process died on days {days:?}: {samples:#?}"))
    };
    let measures: [fn(&Kept) -> usize; 2] = [|kept| kept.named, |kept| kept.named_bytes];
    for (name, of) in ["named", "bytes"].into_iter().zip(measures) {
        let (early, late) = (most(0..3, of), most(4..9, of));
        println!("{name}: {early} in the first three days, {late} in the last");
        assert!(late <= early * 3 / 2, "{name}: {early} in the first three days, {late} in the last: {samples:#?}");
    }
    for kept in samples {
        assert!(kept.links <= LINKS_MAX, "{kept:?}");
        assert!(kept.objects <= kept.named + 12 * kept.lives, "{kept:?}");
    }
}
