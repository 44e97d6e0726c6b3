//! A store that refuses, loses acknowledgements and is slow: the job waits, tries again, and ends as if nothing had been.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::ledger::Ledger;
use super::subject::{Place, Subject, alerts_are_out_once, difference};
use crate::s3_server::{S3Server, StoreFaults};

/// What happens to requests, and how often: per hundred.
const FAULTS: [(u32, &str, StoreFaults); 3] = [
    (
        6,
        "an S3 store that answers a fifth of all requests with 503",
        StoreFaults { refused: 20, lost_answers: 0, slow_ms: 0 },
    ),
    (
        7,
        "an S3 store that loses the answers to a fifth of all requests",
        StoreFaults { refused: 0, lost_answers: 20, slow_ms: 0 },
    ),
    (8, "an S3 store that takes 50 ms for each request", StoreFaults { refused: 0, lost_answers: 0, slow_ms: 50 }),
];

/// Longer than the client library tries by itself.
const OUTAGE: Duration = Duration::from_secs(12);

#[test]
fn a_store_that_is_gone_for_a_while_is_waited_for() -> Result<()> {
    let ledger = Ledger::new(9, "an S3 store that answers nothing but 503 for 12 s while the job runs");
    let server = S3Server::start()?;
    let subject = Subject::new("store-outage", Place::S3(&server))?;
    let running = subject.start(&["--moments", "moments"])?;
    let has_links =
        || std::fs::read_to_string(subject.folder.path().join("moments")).is_ok_and(|text| text.contains("manifest-"));
    let (mut gone_since, mut is_back) = (None, false);
    subject.finish_beside(running, &mut || {
        match gone_since {
            None if has_links() => {
                server.set_outage(true)?;
                gone_since = Some(Instant::now());
            }
            Some(since) if !is_back && since.elapsed() > OUTAGE => {
                server.set_outage(false)?;
                is_back = true;
            }
            _ => {}
        }
        Ok(())
    })?;
    ensure!(is_back, "the job ended while its store was gone");
    ensure!(subject.folder.log().contains("again"), "nothing was said of it:\n{}", subject.folder.log());
    ledger.note("outage", 1, &difference(&subject)?, &[]);
    alerts_are_out_once(&[&subject])?;
    ledger.close()
}

#[test]
fn a_store_in_trouble_changes_nothing() -> Result<()> {
    for (number, fault, faults) in FAULTS {
        let ledger = Ledger::new(number, fault);
        let server = S3Server::start_with(faults)?;
        let subject = Subject::new(&format!("store-{number}"), Place::S3(&server))?;
        subject.finish()?;
        server.heal()?;
        ledger.note(fault, 1, &difference(&subject)?, &[]);
        alerts_are_out_once(&[&subject])?;
        ledger.close()?;
    }
    Ok(())
}
