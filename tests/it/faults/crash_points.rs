//! The process dies at each named moment of a commit and of a recovery: before and after whatever the next process goes on from.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::ledger::Ledger;
use super::subject::{Place, Subject, Undisturbed, alerts_are_out_once, difference};
use crate::s3_server::S3Server;
use crate::setting;

const DEATH_LIMIT: Duration = Duration::from_secs(120);
/// Runs side by side: a run waits for disks and the broker more than it computes.
const THREADS: usize = 3;
const TRIES: u32 = 6;
/// More than it takes to halve the number of times that a run comes to anything.
const RUNS_TRIED: u32 = 16;
/// What a shell says of a process that ended by SIGABRT.
const ABORTED: i32 = 128 + 6;
/// Where a process dies so that the next one has something to recover: a link that is put and whose alerts are not out.
const DEATH_BEFORE_RECOVERY: &str = "alerts.before#2";
/// Steps that a run of this kind has to come to: if one is missing, the matrix is not what it says it is.
const STEPS: [&str; 15] = [
    "alert-state",
    "alert-transaction",
    "alerts",
    "clean-up",
    "delta-commit",
    "early-alerts",
    "files",
    "generation",
    "manifest-of-checkpoint",
    "manifest-of-tick",
    "read-range",
    "rows",
    "stages",
    "state",
    "table",
];
/// Of a recovery besides.
const STEPS_OF_RECOVERY: [&str; 5] = ["read-generation", "read-link", "read-marker", "read-object", "seal"];

/// Where a process dies: at the first one, and the next process at the second, if there is one.
#[derive(Debug, Clone)]
struct Death {
    first: String,
    then: Option<String>,
}

fn deaths_of(death: &Death) -> u64 {
    1 + u64::from(death.then.is_some())
}

/// The moments by name, and how often a run comes to each.
fn counted(moments: &[String]) -> Result<BTreeMap<String, u32>> {
    let mut counted = BTreeMap::new();
    for moment in moments {
        let (name, time) = moment.split_once('#').context("a moment has a count")?;
        counted.insert(name.to_owned(), time.parse()?);
    }
    Ok(counted)
}

fn has_steps(counted: &BTreeMap<String, u32>, steps: &[&str]) -> Result<()> {
    let has = |step: &str| counted.keys().any(|name| name.split('.').next() == Some(step));
    let missing: Vec<&&str> = steps.iter().filter(|step| !has(step)).collect();
    ensure!(missing.is_empty(), "the run did not come to {missing:?}, only to {counted:?}");
    Ok(())
}

/// The moments of as many runs as it takes to come to all.
fn moments_of_runs() -> Result<BTreeMap<String, u32>> {
    let mut all = counted(&Undisturbed::get()?.moments)?;
    for run in 1..=RUNS_TRIED {
        if has_steps(&all, &STEPS).is_ok() {
            break;
        }
        let subject = Subject::for_try(&format!("faults-moments-{run}"), Place::Folder, run)?;
        for (name, times) in counted(&subject.moments()?)? {
            let most = all.entry(name).or_default();
            *most = times.max(*most);
        }
    }
    has_steps(&all, &STEPS)?;
    Ok(all)
}

/// At each moment of a run, the first time and in the middle of it.
fn deaths_of_a_run() -> Result<Vec<Death>> {
    let counted = moments_of_runs()?;
    let mut deaths = Vec::new();
    for (name, times) in counted {
        deaths.push(Death { first: format!("{name}#1"), then: None });
        if times >= 4 {
            deaths.push(Death { first: format!("{name}#{}", times / 2), then: None });
        }
    }
    Ok(deaths)
}

/// At each moment of a process that recovers, until it has committed something of the lanes that it took. On a slow machine it may put
/// rows that waited into a link before.
fn deaths_of_a_recovery(place: Place<'_>, job: &str) -> Result<Vec<Death>> {
    let subject = die_in_a_new_job(job, place, DEATH_BEFORE_RECOVERY)?;
    let mut running = subject.start(&["--moments", "moments"])?;
    ensure!(running.wait(DEATH_LIMIT)?.success(), "the recovery failed:\n{}", running.log_tail());
    let moments = fs::read_to_string(subject.folder.path().join("moments"))?;
    let moments: Vec<String> = moments.lines().map(str::to_owned).collect();
    let sealed = moments.iter().position(|moment| moment.starts_with("seal.")).context("it takes lanes")?;
    let committed = moments[sealed..].iter().position(|moment| moment.starts_with("manifest-"));
    let counted = counted(&moments[..committed.map_or(moments.len(), |at| sealed + at)])?;
    has_steps(&counted, &STEPS_OF_RECOVERY)?;
    let death = |name: &String| Death { first: DEATH_BEFORE_RECOVERY.to_owned(), then: Some(format!("{name}#1")) };
    Ok(counted.keys().map(death).collect())
}

/// Lets a new job run into its death. If a run is shorter than the one that was counted, another dies at an earlier time; what its
/// checkpoints have to write depends on how fast it reads, so some runs are tried.
fn die_in_a_new_job(name: &str, place: Place<'_>, moment: &str) -> Result<Subject> {
    let (step, time) = moment.split_once('#').context("a moment has a count")?;
    let mut time: u32 = time.parse()?;
    for run in 1..=RUNS_TRIED {
        let subject = Subject::for_try(&format!("{name}-run-{run}"), place, run)?;
        if die(&subject, &format!("{step}#{time}"))? {
            return Ok(subject);
        }
        time = (time / 2).max(1);
    }
    bail!("{RUNS_TRIED} runs of `{name}` do not come to `{step}`")
}

/// Not every recovery comes to every moment: what it has to write depends on how fast it reads. So some are tried.
fn die_as_told(name: &str, place: Place<'_>, death: &Death) -> Result<Subject> {
    for time in 1..=TRIES {
        let subject = die_in_a_new_job(&format!("{name}-try-{time}"), place, &death.first)?;
        match &death.then {
            Some(then) if !die(&subject, then)? => {}
            _ => return Ok(subject),
        }
    }
    bail!("{TRIES} recoveries do not come to the moment")
}

/// Whether the job came to the moment, and so died.
fn die(subject: &Subject, moment: &str) -> Result<bool> {
    let mut running = subject.start(&["--crash-at", moment])?;
    let status = running.wait(DEATH_LIMIT)?;
    let died = status.code() == Some(ABORTED);
    ensure!(died || status.success(), "it ended otherwise than it was told to:\n{}", running.log_tail());
    Ok(died)
}

fn die_everywhere(deaths: &[Death], place: Place<'_>, name: &str, ledger: Ledger) -> Result<()> {
    let next = AtomicUsize::new(0);
    let run_one = |number: usize| -> Result<Subject> {
        let death = &deaths[number];
        let subject = die_as_told(&format!("{name}-{number}"), place, death)?;
        let recovery = subject.finish()?;
        ledger.note(&format!("{death:?}"), deaths_of(death), &difference(&subject)?, recovery.as_slice());
        Ok(subject)
    };
    let work = || -> Result<Vec<Subject>> {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= deaths.len() {
                return Ok(done);
            }
            done.push(run_one(number).with_context(|| format!("{:?}", deaths[number]))?);
        }
    };
    let subjects = thread::scope(|scope| {
        let running: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let mut subjects = Vec::new();
        for thread in running {
            subjects.extend(thread.join().map_err(|_| anyhow!("a thread of the test panicked"))??);
        }
        Ok::<_, anyhow::Error>(subjects)
    })?;
    alerts_are_out_once(&subjects.iter().collect::<Vec<_>>())?;
    ledger.close()
}

#[test]
fn a_process_that_dies_at_any_moment_of_a_run_changes_nothing() -> Result<()> {
    let deaths = deaths_of_a_run()?;
    die_everywhere(&deaths, Place::Folder, "dies", Ledger::new(1, "death at each named moment, archive in a folder"))
}

/// In the tests of every day only so many of the deaths, spread over all of them.
fn some_of(deaths: Vec<Death>, share: usize) -> Vec<Death> {
    let share = if setting("WATTLINE_KILLS").is_some() { 1 } else { share };
    deaths.into_iter().step_by(share).collect()
}

#[test]
fn a_process_that_dies_at_any_moment_of_a_recovery_changes_nothing() -> Result<()> {
    let deaths = some_of(deaths_of_a_recovery(Place::Folder, "recovers")?, 2);
    let ledger = Ledger::new(2, "a second death at each moment of the recovery, archive in a folder");
    die_everywhere(&deaths, Place::Folder, "dies-again", ledger)
}

#[test]
fn a_process_that_dies_changes_nothing_in_an_s3_store() -> Result<()> {
    let server = S3Server::start()?;
    let place = Place::S3(&server);
    let mut deaths = deaths_of_a_run()?;
    // A call to the store is the same the second time, and before it nothing is there yet.
    deaths.retain(|death| death.first.ends_with(".after#1"));
    deaths.extend(deaths_of_a_recovery(place, "s3-recovers")?);
    let deaths = some_of(deaths, 4);
    die_everywhere(&deaths, place, "s3-dies", Ledger::new(3, "death at each named moment, S3 store"))
}
