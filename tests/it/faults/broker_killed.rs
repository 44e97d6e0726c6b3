//! The broker dies while a job reads from it and publishes to it, and comes back on the same log: the job waits and goes on.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::ledger::Ledger;
use super::subject::{ALERTS, Place, Setup, Subject, alerts_are_out_once_at, difference};
use super::{feed, rounds};
use crate::child_process::wait_until;
use crate::kafka_broker::TestBroker;

const TOPIC: &str = "visits";
const MOMENT_LIMIT: Duration = Duration::from_secs(60);
/// How long it is away, besides its start.
const OUTAGE: Duration = Duration::from_secs(3);
/// Slow enough that there is more to read whenever the broker comes back.
const PACE_MS: u32 = 150;

#[test]
fn a_broker_that_dies_and_comes_back_costs_nothing() -> Result<()> {
    let fault = "a broker that is killed (`kill -9`) while a job reads and publishes, and comes back";
    let ledger = Ledger::new(10, fault);
    let mut broker = TestBroker::start()?;
    broker.create_topic(ALERTS, 1, &[])?;
    feed::visits(&broker, TOPIC)?;
    let mut subjects = Vec::new();
    for kill in 0..rounds(1, 20)? {
        let bootstrap = broker.bootstrap();
        let setup = Setup { bootstrap, topic: Some(TOPIC), pace_ms: PACE_MS, ..Setup::at(Place::Folder) };
        let subject = Subject::with(&format!("broker-killed-{kill}"), &setup)?;
        let mut running = subject.start(&[])?;
        let links = 2 + usize::try_from(kill % 4)?;
        wait_until(MOMENT_LIMIT, || {
            ensure!(running.try_wait()?.is_none(), "the job ended before the broker did:\n{}", running.log_tail());
            Ok((subject.folder.manifests() >= links).then_some(()))
        })?;
        broker.kill9()?;
        thread::park_timeout(OUTAGE);
        ensure!(running.try_wait()?.is_none(), "the job did not live through the outage:\n{}", running.log_tail());
        broker.restart()?;
        // From the broker's first answer to the next link.
        let recovery = subject.finish_beside(running, &mut || Ok(()))?;
        ledger.note(&format!("after {links} links"), 1, &difference(&subject)?, recovery.as_slice());
        subjects.push(subject);
    }
    alerts_are_out_once_at(&broker, &subjects.iter().collect::<Vec<_>>())?;
    ledger.close()
}
