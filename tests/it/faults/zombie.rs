//! A process that stood still while another took its place: it has to find out, say so and end, and nothing that it still had counts.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::ledger::Ledger;
use super::subject::{Place, Subject, alerts_are_out_once, difference};
use crate::child_process::wait_until;

const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const END_LIMIT: Duration = Duration::from_secs(30);
/// Links after which it is stopped: a quick machine needs no more than five for all of the input, and has nothing to put behind the last.
const STOPPED_AFTER: [usize; 3] = [1, 2, 3];

#[test]
fn a_process_that_wakes_up_after_another_took_its_place_ends() -> Result<()> {
    let ledger = Ledger::new(5, "a process that is stopped (SIGSTOP), replaced, and goes on");
    let mut subjects = Vec::new();
    for links in STOPPED_AFTER {
        let subject = Subject::new(&format!("zombie-{links}"), Place::Folder)?;
        let mut zombie = subject.start(&[])?;
        wait_until(MOMENT_LIMIT, || {
            ensure!(zombie.try_wait()?.is_none(), "the job ended before it had {links} links");
            Ok((subject.folder.manifests() >= links).then_some(()))
        })?;
        zombie.signal("STOP")?;
        let recovery = subject.finish()?;
        let before = subject.lines()?;
        zombie.signal("CONT")?;
        let status = zombie.wait(END_LIMIT)?;
        ensure!(!status.success(), "the process did not notice that it was replaced:\n{}", zombie.log_tail());
        let said = zombie.log_tail();
        ensure!(said.contains("another process"), "it does not say why it ended:\n{said}");
        ensure!(subject.lines()? == before, "it changed results after it was replaced");
        ledger.note(&format!("after {links} links"), 1, &difference(&subject)?, recovery.as_slice());
        subjects.push(subject);
    }
    alerts_are_out_once(&subjects.iter().collect::<Vec<_>>())?;
    ledger.close()
}
