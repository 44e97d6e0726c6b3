//! Several processes share a job: more come, some leave, one dies, one sleeps; together they give what one gives.
//!
//! With `WATTLINE_OTHER_PROGRAM=/path/to/wattline` the first of them runs that program, as while one version takes the place of another.
//! It begins the job, gives slots to this program, takes over those of processes that die or leave, and leaves the rest to this one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use wattline_sim::{Devices, Meters, Transactions};

use super::counts::{alerts_are_published_once, records_are_accounted_for, rules_said_what_they_must};
use super::job::JobFolder;
use super::traffic::Traffic;
use crate::child_process::{ChildProcess, wait_until};
use crate::kafka_broker::TestBroker;

const RUN_LIMIT: Duration = Duration::from_secs(180);
const MOMENT_LIMIT: Duration = Duration::from_secs(60);
/// Of the job; lines of `[kafka.properties]` come after it.
pub(super) const SETTINGS: &str = "[run]\nslots = 3\ntick = \"300 ms\"\ncheckpoint = \"2 seconds\"\nfile_age = \"4 seconds\"\n\
    [kafka.properties]\n";
/// The two protocols of the group. How long it misses a silent member is said here by the one, and by the broker of the tests, which
/// says the same, by the other.
pub(super) const CLASSIC: &str = "\"session.timeout.ms\" = 6000";
const CONSUMER: &str = "\"group.protocol\" = \"consumer\"";

pub(super) fn traffic(test: &str, readings: u64) -> Traffic {
    Traffic::new(
        test,
        91,
        Meters { meters: 2_000, readings },
        Devices { devices: 100, samples: 6_000 },
        Transactions { steps: 4_000 },
    )
}

/// Moments at which a process with all slots dies, one after the other: between what a link tells and the inboxes that it is for.
const DEATHS: [&str; 4] = ["outbox.after#4", "exchange.before#5", "exchange.after#7", "manifest-of-tick.after#3"];
/// What a shell says of a process that ended by SIGABRT.
const ABORTED: i32 = 128 + 6;

/// Links that each slot has put.
fn links(folder: &JobFolder) -> Vec<usize> {
    let of_slot = |slot: usize| {
        let pattern = folder.archive().join(format!("_wattline/*/chains/{slot}/*"));
        glob::glob(&pattern.display().to_string()).map_or(0, |paths| paths.flatten().count())
    };
    (0..3).map(of_slot).collect()
}

/// Every slot commits, whoever runs it.
pub(super) fn all_go_on(folder: &JobFolder, running: &mut [&mut ChildProcess]) -> Result<()> {
    let before = links(folder);
    let gone_on = wait_until(MOMENT_LIMIT, || {
        let now = links(folder);
        Ok(now.iter().zip(&before).all(|(now, before)| *now > before + 2).then_some(()))
    });
    gone_on.with_context(|| format!("links were {before:?} and are {:?}:\n{}", links(folder), folder.log()))?;
    for process in running {
        let ended = process.try_wait()?;
        ensure!(ended.is_none(), "a process ended by itself with {ended:?}:\n{}", folder.log());
    }
    Ok(())
}

#[test]
fn two_three_and_one_process_give_what_one_gives() -> Result<()> {
    processes_give_what_one_gives("slots", 80_000, CLASSIC)
}

#[test]
fn processes_of_a_group_of_the_newer_protocol_give_what_one_gives() -> Result<()> {
    processes_give_what_one_gives("slots-consumer", 80_000, CONSUMER)
}

fn processes_give_what_one_gives(test: &str, readings: u64, protocol: &str) -> Result<()> {
    let broker = TestBroker::shared();
    let traffic = traffic(test, readings);
    traffic.create_topics(broker)?;
    let folder = JobFolder::new(test)?;
    traffic.configure(&folder, &broker.bootstrap(), &format!("{SETTINGS}{protocol}"))?;
    let hurry = AtomicBool::new(false);
    let made = thread::scope(|scope| {
        let producing = scope.spawn(|| traffic.produce_slowly(&broker.bootstrap(), &hurry));
        let shared = share(&folder, protocol);
        hurry.store(true, Ordering::Relaxed);
        let made = producing.join().map_err(|_| anyhow!("the producer panicked"))??;
        shared?;
        Ok::<_, anyhow::Error>(made)
    })?;
    folder.run_until_end(RUN_LIMIT)?;
    records_are_accounted_for(&folder, &traffic, &made)?;
    rules_said_what_they_must(&folder, &traffic)?;
    alerts_are_published_once(&folder, broker, &traffic)?;
    folder.answer(&["archive", "verify"]).map(drop)
}

fn share(folder: &JobFolder, protocol: &str) -> Result<()> {
    // Earlier versions know one protocol.
    let mut first = if protocol == CLASSIC { folder.start_other(&["run"])? } else { folder.start(&["run"])? };
    let mut second = folder.start(&["run"])?;
    all_go_on(folder, &mut [&mut first, &mut second])?;
    let mut third = folder.start(&["run"])?;
    // It takes a slot over from one of the others, in order.
    wait_until(MOMENT_LIMIT, || Ok((folder.log().matches("gives this process slots").count() >= 3).then_some(())))?;
    all_go_on(folder, &mut [&mut first, &mut second, &mut third])?;
    // The group hears no more of it, gives its slots to others, and it finds out when it wakes up.
    second.signal("STOP")?;
    all_go_on(folder, &mut [&mut first, &mut third])?;
    second.signal("CONT")?;
    all_go_on(folder, &mut [&mut first, &mut second, &mut third])?;
    third.kill9()?;
    all_go_on(folder, &mut [&mut first, &mut second])?;
    let status = second.terminate(MOMENT_LIMIT)?;
    ensure!(status.success(), "ended with {status}:\n{}", second.log_tail());
    all_go_on(folder, &mut [&mut first])?;
    let status = first.terminate(MOMENT_LIMIT)?;
    ensure!(status.success(), "ended with {status}:\n{}", first.log_tail());
    Ok(())
}

#[test]
fn slots_that_die_between_link_and_inboxes_tell_all_of_it_once() -> Result<()> {
    let broker = TestBroker::shared();
    let traffic = traffic("slots-deaths", 60_000);
    traffic.create_topics(broker)?;
    let folder = JobFolder::new("slots-deaths")?;
    traffic.configure(&folder, &broker.bootstrap(), &format!("{SETTINGS}{CLASSIC}"))?;
    let made = traffic.produce(&broker.bootstrap(), |_sent| {})?;
    for moment in DEATHS {
        let mut running = folder.start(&["run", "--crash-at", moment])?;
        let status = running.wait(MOMENT_LIMIT).with_context(|| format!("`{moment}` was not come to"))?;
        ensure!(status.code() == Some(ABORTED), "`{moment}`: ended with {status}:\n{}", running.log_tail());
    }
    folder.run_until_end(RUN_LIMIT)?;
    records_are_accounted_for(&folder, &traffic, &made)?;
    rules_said_what_they_must(&folder, &traffic)?;
    alerts_are_published_once(&folder, broker, &traffic)?;
    folder.answer(&["archive", "verify"]).map(drop)
}
