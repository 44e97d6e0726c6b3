//! The group takes lanes away while the program runs, and gives them back. Other faults of the outside: [`crate::faults`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use wattline_sim::{Devices, Meters, Transactions};

use super::counts::{alerts_are_published_once, records_are_accounted_for, rules_said_what_they_must};
use super::job::JobFolder;
use super::traffic::Traffic;
use crate::child_process::wait_until;
use crate::kafka_broker::TestBroker;

const RUN_LIMIT: Duration = Duration::from_secs(300);
const MOMENT_LIMIT: Duration = Duration::from_secs(60);
/// How long the intruder keeps what the group gave it.
const INTRUSION: Duration = Duration::from_secs(2);
const SETTINGS: &str = "[run]\ntick = \"200 ms\"\ncheckpoint = \"2 seconds\"\nfile_age = \"4 seconds\"";

fn traffic(test: &str, readings: u64) -> Traffic {
    Traffic::new(
        test,
        77,
        Meters { meters: 4_000, readings },
        Devices { devices: 200, samples: 12_000 },
        Transactions { steps: 9_000 },
    )
}

#[test]
fn lanes_that_the_group_takes_and_gives_back_go_on() -> Result<()> {
    let broker = TestBroker::shared();
    let traffic = traffic("rebalance", 200_000);
    traffic.create_topics(broker)?;
    let folder = JobFolder::new("rebalance")?;
    traffic.configure(&folder, &broker.bootstrap(), SETTINGS)?;
    let hurry = AtomicBool::new(false);
    let made = thread::scope(|scope| {
        let producing = scope.spawn(|| traffic.produce_slowly(&broker.bootstrap(), &hurry));
        let intruded = intrude(&folder, &traffic);
        hurry.store(true, Ordering::Relaxed);
        let made = producing.join().map_err(|_| anyhow!("the producer panicked"))??;
        intruded?;
        Ok::<_, anyhow::Error>(made)
    })?;
    folder.run_until_end(RUN_LIMIT)?;
    records_are_accounted_for(&folder, &traffic, &made)?;
    rules_said_what_they_must(&folder, &traffic)?;
    alerts_are_published_once(&folder, broker, &traffic)
}

/// A foreign consumer joins the group of the running job, is given lanes, reads nothing and leaves.
fn intrude(folder: &JobFolder, traffic: &Traffic) -> Result<()> {
    let mut running = folder.start_bare(&["run"])?;
    running.wait_until(MOMENT_LIMIT, || folder.manifests() >= 2)?;
    let mut config = TestBroker::shared().client_config();
    config.set("group.id", format!("wattline-{}", traffic.job)).set("enable.auto.commit", "false");
    let intruder: BaseConsumer = config.create()?;
    let topics = traffic.streams().map(|stream| stream.topic.as_str());
    intruder.subscribe(&topics)?;
    wait_until(MOMENT_LIMIT, || {
        // Its records are thrown away: only its membership matters.
        drop(intruder.poll(Duration::from_millis(50)));
        Ok((intruder.assignment()?.count() > 0).then_some(()))
    })?;
    let given = Instant::now();
    while given.elapsed() < INTRUSION {
        drop(intruder.poll(Duration::from_millis(50)));
    }
    drop(intruder);
    let manifests = folder.manifests();
    running.wait_until(MOMENT_LIMIT, || folder.manifests() >= manifests + 2)?;
    let (status, said, _took) = running.end_by("TERM", MOMENT_LIMIT)?;
    ensure!(status.success(), "ended with {status}; it said\n{said}");
    ensure!(said.contains("took lanes away"), "the group took nothing away; it said\n{said}");
    Ok(())
}
