//! `kill -9` at moments that nobody chose, and orders to stop, again and again until the job has come to its end.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use wattline_sim::Random;

use super::ledger::Ledger;
use super::rounds;
use super::subject::{Place, Subject, alerts_are_out_once, difference};
use crate::setting;

/// Kills of an ordinary run of the tests; `WATTLINE_KILLS` has more.
const KILLS: u64 = 12;
/// A process that is killed lives at most so long, and at least long enough that the job gets on.
const LIFE_MAX: Duration = Duration::from_millis(2_500);
const KILLS_OF_A_JOB: u64 = 4;
/// What a job may take to commit what it has read and end, with other tests beside it.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Kills the job up to four times, then lets it end; gives how often it was killed.
fn kill_a_job(seed: u64, ledger: &Ledger) -> Result<(Subject, u64)> {
    let subject = Subject::new(&format!("kills-{seed}"), Place::Folder)?;
    let mut random = Random::new(seed);
    let mut kills = 0;
    while kills < KILLS_OF_A_JOB {
        let life = Duration::from_millis(random.below(u64::try_from(LIFE_MAX.as_millis())?));
        let mut running = subject.start(&[])?;
        let started = Instant::now();
        while started.elapsed() < life && running.try_wait()?.is_none() {
            thread::park_timeout(Duration::from_millis(2));
        }
        if let Some(status) = running.try_wait()? {
            ensure!(status.success(), "the job ended with {status}:\n{}", running.log_tail());
            break;
        }
        running.kill9()?;
        kills += 1;
    }
    let recovery = subject.finish()?;
    ledger.note(&format!("seed {seed}"), kills, &difference(&subject)?, recovery.as_slice());
    Ok((subject, kills))
}

#[test]
fn kills_at_random_moments_change_nothing() -> Result<()> {
    let wanted = setting("WATTLINE_KILLS").map_or(Ok(KILLS), |text| text.parse().context("WATTLINE_KILLS"))?;
    let first: u64 = setting("WATTLINE_SEED").map_or(Ok(1), |text| text.parse().context("WATTLINE_SEED"))?;
    let ledger = Ledger::new(4, "`kill -9` at random moments, up to four times in a job");
    let (mut subjects, mut kills, mut seed) = (Vec::new(), 0, first);
    while kills < wanted {
        let (subject, of_job) = kill_a_job(seed, &ledger).with_context(|| format!("WATTLINE_SEED={seed}"))?;
        subjects.push(subject);
        kills += of_job;
        seed += 1;
    }
    eprintln!("{kills} kills, seeds {first} to {}", seed - 1);
    alerts_are_out_once(&subjects.iter().collect::<Vec<_>>())?;
    ledger.close()
}

/// Stops a job in order, each time a while after its first link, up to four times, then lets it end.
fn stop_a_job(seed: u64, ledger: &Ledger) -> Result<Subject> {
    let subject = Subject::new(&format!("stops-{seed}"), Place::Folder)?;
    let mut random = Random::new(seed);
    let mut stops = 0;
    'lives: while stops < KILLS_OF_A_JOB {
        let (before, mut running) = (subject.folder.manifests(), subject.start(&[])?);
        let life = Duration::from_millis(random.below(300));
        let mut begun = None;
        while begun.is_none_or(|begun: Instant| begun.elapsed() < life) {
            if let Some(status) = running.try_wait()? {
                ensure!(status.success(), "the job ended with {status}:\n{}", running.log_tail());
                break 'lives;
            }
            if begun.is_none() && subject.folder.manifests() > before {
                begun = Some(Instant::now());
            }
            thread::park_timeout(Duration::from_millis(2));
        }
        let status = running.terminate(STOP_LIMIT)?;
        ensure!(status.success(), "told to stop, the job ended with {status}:\n{}", running.log_tail());
        stops += 1;
    }
    let recovery = subject.finish()?;
    ledger.note(&format!("seed {seed}"), stops, &difference(&subject)?, recovery.as_slice());
    Ok(subject)
}

#[test]
fn a_job_that_is_stopped_again_and_again_goes_on() -> Result<()> {
    let ledger = Ledger::new(21, "an order to stop (SIGTERM) at random moments, up to four times in a job");
    let jobs = rounds(2, 10)?;
    let subjects = (1..=jobs).map(|seed| stop_a_job(seed, &ledger)).collect::<Result<Vec<_>>>()?;
    alerts_are_out_once(&subjects.iter().collect::<Vec<_>>())?;
    ledger.close()
}
