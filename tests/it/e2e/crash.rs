//! Killed without warning, at three kinds of moments, and started again: nothing is lost, nothing is there twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};
use wattline_sim::{Devices, Meters, Transactions};

use super::counts::{alerts_are_published_once, records_are_accounted_for, rules_said_what_they_must};
use super::job::JobFolder;
use super::traffic::Traffic;
use crate::child_process::wait_until;
use crate::kafka_broker::TestBroker;

const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const RUN_LIMIT: Duration = Duration::from_secs(300);
const SETTINGS: &str = "[run]\ntick = \"200 ms\"\ncheckpoint = \"2 seconds\"\nfile_age = \"4 seconds\"";

/// When the program is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// After so many further manifests.
    Manifests(usize),
    /// As soon as a table has one more commit: others of the same checkpoint may still lack theirs.
    TableCommit,
}

#[test]
fn kill_nine_loses_and_doubles_nothing() -> Result<()> {
    let broker = TestBroker::shared();
    let traffic = Traffic::new(
        "crash",
        9,
        Meters { meters: 5_000, readings: 300_000 },
        Devices { devices: 200, samples: 12_000 },
        Transactions { steps: 9_000 },
    );
    traffic.create_topics(broker)?;
    let folder = JobFolder::new("crash")?;
    traffic.configure(&folder, &broker.bootstrap(), SETTINGS)?;

    let hurry = AtomicBool::new(false);
    let made = thread::scope(|scope| {
        let producing = scope.spawn(|| traffic.produce_slowly(&broker.bootstrap(), &hurry));
        let killed = [Moment::Manifests(3), Moment::TableCommit, Moment::Manifests(5)]
            .into_iter()
            .try_for_each(|moment| kill_at(&folder, moment));
        let still_producing = !producing.is_finished();
        hurry.store(true, Ordering::Relaxed);
        let made = producing.join().map_err(|_| anyhow!("the producer panicked"))??;
        killed?;
        ensure!(still_producing, "the input ended before the last kill: nothing was read while it was written");
        Ok(made)
    })?;

    folder.run_until_end(RUN_LIMIT)?;
    records_are_accounted_for(&folder, &traffic, &made)?;
    rules_said_what_they_must(&folder, &traffic)?;
    alerts_are_published_once(&folder, broker, &traffic)
}

/// Starts the job, waits for the moment, kills it.
fn kill_at(folder: &JobFolder, moment: Moment) -> Result<()> {
    let (manifests, commits) = (folder.manifests(), folder.table_commits("meter_readings"));
    let mut running = folder.start(&["run"])?;
    wait_until(MOMENT_LIMIT, || {
        if let Some(status) = running.try_wait()? {
            bail!("the job ended by itself with {status}:\n{}", running.log_tail());
        }
        let reached = match moment {
            Moment::Manifests(more) => folder.manifests() >= manifests + more,
            Moment::TableCommit => folder.table_commits("meter_readings") > commits.max(1),
        };
        Ok(reached.then_some(()))
    })
    .map_err(|error| error.context(format!("waiting for {moment:?}; the job said\n{}", running.log_tail())))?;
    running.kill9()
}
