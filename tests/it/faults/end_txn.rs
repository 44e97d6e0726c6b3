//! Commits of the alerts' transactions that do not arrive, or whose answers are lost or late: what is out is found out, never guessed.
//!
//! An answer that is lost with its connection is asked for again by the client library. One that does not come within half the
//! transaction's time leaves the outcome unknown: the publisher is closed, a new one takes the slot over, which makes the broker finish or roll
//! back what was open, and the marker says which it was.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::ledger::Ledger;
use super::rounds;
use super::subject::{Place, Setup, Subject, alerts_are_out_once, difference};
use crate::kafka_broker::TestBroker;
use crate::kafka_proxy::{END_TXN, Fault, KafkaProxy};

/// Longer than the publisher waits for a commit, which is 5 s, and shorter than two such waits.
const TOO_LATE: Duration = Duration::from_secs(7);

/// Times from a fault to the next link, which says that it was overcome.
#[derive(Debug, Default)]
struct Recoveries {
    faults_seen: u64,
    since: Option<(Instant, usize)>,
    took: Vec<Duration>,
}

impl Recoveries {
    fn look(&mut self, faults: u64, links: usize) {
        if let Some((since, _)) = self.since.take_if(|(_, before)| links > *before) {
            self.took.push(since.elapsed());
        }
        if self.since.is_none() && faults > self.faults_seen {
            self.faults_seen = faults;
            self.since = Some((Instant::now(), links));
        }
    }
}

/// What happens to the commits of a job, by their number.
type Plan = Box<dyn Fn(u64) -> Option<Fault> + Send + Sync>;

/// Runs a job whose commits meet a plan.
fn disturb(job: &str, plan: Plan, ledger: &Ledger) -> Result<Subject> {
    let proxy = KafkaProxy::start(TestBroker::shared(), END_TXN, plan)?;
    let subject = Subject::with(job, &Setup { bootstrap: proxy.bootstrap(), ..Setup::at(Place::Folder) })?;
    let mut recoveries = Recoveries::default();
    subject.finish_beside(subject.start(&[])?, &mut || {
        recoveries.look(proxy.faults(), subject.folder.manifests());
        Ok(())
    })?;
    let faults = proxy.faults();
    ensure!(faults > 0, "`{job}`: {} commits, and none of them met a fault", proxy.seen());
    ledger.note(job, faults, &difference(&subject)?, &recoveries.took);
    Ok(subject)
}

/// Runs jobs whose commits meet the same fault, and writes its row.
fn disturb_all(number: u32, fault: &'static str, plan: impl Fn() -> Plan) -> Result<Vec<Subject>> {
    let ledger = Ledger::new(number, fault);
    let mut subjects = Vec::new();
    for round in 0..rounds(1, 20)? {
        subjects.push(disturb(&format!("commits-{number}-{round}"), plan(), &ledger)?);
    }
    alerts_are_out_once(&subjects.iter().collect::<Vec<_>>())?;
    ledger.close()?;
    Ok(subjects)
}

/// A job that does not know whether its alerts are out says so.
fn doubt_is_told(subjects: &[Subject]) -> Result<()> {
    for subject in subjects {
        let said = subject.folder.log();
        ensure!(said.contains("no answer to the commit of alerts"), "nothing is said of the commit:\n{said}");
    }
    Ok(())
}

#[test]
fn commits_that_are_lost_are_sent_again() -> Result<()> {
    let fault = "every second commit of alerts is lost on its way to the broker, and its connection breaks";
    disturb_all(11, fault, || Box::new(|number: u64| number.is_multiple_of(2).then_some(Fault::RequestLost))).map(drop)
}

#[test]
fn commits_whose_answers_are_lost_are_asked_for_again() -> Result<()> {
    let fault = "the answer to every second commit of alerts is lost, and its connection breaks";
    disturb_all(12, fault, || Box::new(|number: u64| number.is_multiple_of(2).then_some(Fault::AnswerLost))).map(drop)
}

#[test]
fn a_commit_whose_answer_comes_too_late_is_known_by_its_marker() -> Result<()> {
    let fault = "a commit of alerts is carried out and answered 7 s late, when the publisher has given it up";
    let late = Fault::AnswerDelayed(TOO_LATE);
    doubt_is_told(&disturb_all(13, fault, || Box::new(move |number| (number == 2).then_some(late)))?)
}

#[test]
fn commits_that_do_not_arrive_for_long_are_rolled_back_and_made_anew() -> Result<()> {
    let fault = "no commit of alerts arrives for 7 s, longer than the publisher tries one";
    let plan = || -> Plan {
        let begun = OnceLock::new();
        Box::new(move |number| {
            let is_gone = number > 1 && begun.get_or_init(Instant::now).elapsed() < TOO_LATE;
            is_gone.then_some(Fault::RequestLost)
        })
    };
    doubt_is_told(&disturb_all(14, fault, plan)?)
}
