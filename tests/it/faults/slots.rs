//! Processes come, die and leave while they share a job: two, then three, one is killed, one is stopped in order, and the last one
//! finishes what is left.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::ledger::Ledger;
use super::subject::{Place, Setup, Subject, alerts_are_out_once_at, difference};
use super::{feed, rounds};
use crate::child_process::{ChildProcess, wait_until};
use crate::kafka_broker::TestBroker;

const TOPIC: &str = "visits-of-slots";
const SLOTS: usize = 3;
const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const RUN_LIMIT: Duration = Duration::from_secs(120);
/// Slow enough that there is more to read until the last process is alone.
const PACE_MS: u32 = 2_500;

fn links(subject: &Subject) -> Vec<usize> {
    let of_slot = |slot: usize| {
        let pattern = subject.folder.archive().join(format!("_wattline/*/chains/{slot}/*"));
        glob::glob(&pattern.display().to_string()).map_or(0, |paths| paths.flatten().count())
    };
    (0..SLOTS).map(of_slot).collect()
}

/// Waits until every slot has put a link, whoever runs it; gives how long that took.
fn all_go_on(subject: &Subject, running: &mut [ChildProcess]) -> Result<Duration> {
    let (begun, before) = (Instant::now(), links(subject));
    for process in &mut *running {
        let ended = process.try_wait()?;
        ensure!(ended.is_none(), "a process ended by itself with {ended:?}:\n{}", process.log_tail());
    }
    wait_until(MOMENT_LIMIT, || Ok(links(subject).iter().zip(&before).all(|(now, before)| now > before).then_some(())))
        .with_context(|| format!("links were {before:?} and are {:?}:\n{}", links(subject), subject.folder.log()))?;
    Ok(begun.elapsed())
}

#[test]
fn processes_that_come_and_go_give_what_one_gives() -> Result<()> {
    let fault = "processes that share a job: two, three, one killed (`kill -9`), one stopped, one left";
    let ledger = Ledger::new(22, fault);
    let broker = TestBroker::shared();
    feed::visits(broker, TOPIC)?;
    let mut subjects = Vec::new();
    for round in 0..rounds(1, 20)? {
        let setup = Setup {
            topic: Some(TOPIC),
            run: "slots = 3",
            properties: "\"session.timeout.ms\" = 6000",
            pace_ms: PACE_MS,
            ..Setup::at(Place::Folder)
        };
        let subject = Subject::with(&format!("slots-{round}"), &setup)?;
        let mut running = vec![subject.start(&[])?, subject.start(&[])?];
        all_go_on(&subject, &mut running)?;
        running.push(subject.start(&[])?);
        all_go_on(&subject, &mut running)?;
        let dies = usize::try_from(round)? % running.len();
        let mut killed = running.remove(dies);
        killed.kill9()?;
        // Until the slots of the dead one go on elsewhere.
        let recovery = all_go_on(&subject, &mut running)?;
        let mut stopped = running.remove(usize::try_from(round)? % running.len());
        let status = stopped.terminate(MOMENT_LIMIT)?;
        ensure!(status.success(), "stopped with {status}:\n{}", stopped.log_tail());
        // The last one is slow by order, also with what slots tell each other: another one finishes what is left.
        let mut last = running.pop().context("one is left")?;
        all_go_on(&subject, std::slice::from_mut(&mut last))?;
        let status = last.terminate(MOMENT_LIMIT)?;
        ensure!(status.success(), "stopped with {status}:\n{}", last.log_tail());
        subject.folder.run_until_end(RUN_LIMIT)?;
        ledger.note(&format!("round {round}"), 4, &difference(&subject)?, &[recovery]);
        subjects.push(subject);
    }
    alerts_are_out_once_at(broker, &subjects.iter().collect::<Vec<_>>())?;
    ledger.close()
}
