//! `wattline apply` of a job of several slots: the processes of this folder take its rules, and the archive says which slots run them.
//!
//! ```text
//! ask    every process that runs from this folder, each at its desk ──▶ taken, with its slots and the last link of each before; or refused
//! look   at the links of all slots of the job: is there one behind that, of the revision of these rules?
//! ```
//! What counts is the link: a slot that moves meanwhile, or that a process of another machine runs, is found by its chain like any other.
//! Nothing is written but the requests. So it can be run any number of times, on any machines, also at the same time, and a crash of it
//! leaves the processes as they are. Whatever does not answer is waited for as long as `--wait` says.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use wattline_runtime::rules_revision;
use wattline_runtime::standing::{RulesLink, RulesOfSlot};

use super::LOOK_EVERY;
use crate::adapt::archive::{JOBS_FOLDER, JobStore};
use crate::adapt::plans::rule_plans;
use crate::cli::ApplyArgs;
use crate::job;
use crate::project::Project;
use crate::reload::{Answer, ProcessDesk, differences, living};
use crate::report;

/// How often it looks for new links.
const LINKS_EVERY: Duration = Duration::from_millis(500);

/// What a process says.
enum Said {
    Taken(Answer),
    Refused(String),
    /// It has ended without a word.
    Ended,
    Nothing,
}

/// How a slot stands to the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// This link was made by them.
    Runs(u64),
    /// A process of this folder has begun it with them, and it has put no link since.
    Begins,
    /// Its newest link was made by other rules.
    Other,
    /// It has no link.
    Nothing,
}

/// How a slot stands by its newest epoch; `here` if a process of this folder has begun it again, behind a link if that is known.
fn stands(newest: Option<&RulesLink>, revision: &str, here: Option<Option<u64>>) -> Stands {
    let is_behind = |link: &RulesLink| here.flatten().is_none_or(|behind| link.n > behind);
    match (newest, here) {
        (Some(link), _) if link.revision == revision && is_behind(link) => Stands::Runs(link.n),
        (Some(link), Some(Some(behind))) if link.n > behind => Stands::Other,
        (_, Some(_)) => Stands::Begins,
        (Some(_), None) => Stands::Other,
        (None, None) => Stands::Nothing,
    }
}

/// How long all of it may take.
struct Limit {
    since: Instant,
    wait: Duration,
}

impl Limit {
    fn is_over(&self) -> bool {
        self.since.elapsed() > self.wait
    }
}

pub(super) async fn run(project: &Project, args: &ApplyArgs) -> Result<ExitCode> {
    let limit = Limit { since: Instant::now(), wait: args.wait.duration() };
    let job = project.config.job.get_ref();
    let desks = living(&project.folder, &project.config);
    if desks.is_empty() {
        bail!(
            "no process of job `{job}` can be asked in `{}`: run this where `wattline run` runs with this configuration. A process that \
             cannot write into that folder is told by SIGHUP",
            project.folder.display()
        );
    }
    let heard = Heard::of(&desks, ask(&desks, &limit).await?, &limit);
    if heard.slots.is_none() {
        return Ok(heard.exit_code(true));
    }
    let slots = Slots::of(project, heard.slots.clone().unwrap_or_default(), args.here).await?;
    let all_run = slots.wait_for(&limit, heard.is_whole()).await?;
    if all_run && heard.is_whole() {
        let seconds = limit.since.elapsed().as_secs_f64();
        let which = match args.here {
            true => "all slots of the processes of this folder run".to_owned(),
            false => format!("all {} slots of job `{job}` run", project.config.run.slots),
        };
        report::print(&format!("applied after {seconds:.1} s: {which} these rules\n"));
    }
    Ok(heard.exit_code(all_run))
}

/// Asks all processes, and waits for what each says.
async fn ask(desks: &[ProcessDesk], limit: &Limit) -> Result<Vec<Said>> {
    let request = uuid::Uuid::new_v4().simple().to_string();
    for of in desks {
        of.desk.ask(&request)?;
    }
    let mut all: Vec<Option<Said>> = desks.iter().map(|_| None).collect();
    loop {
        for (of, said) in desks.iter().zip(&mut all).filter(|(_, said)| said.is_none()) {
            // Looked at before the answer: what has answered may end then.
            let is_alive = of.is_alive();
            *said = match of.desk.answer(&request) {
                Some(Answer { refused: Some(why), .. }) => Some(Said::Refused(why)),
                Some(answer) => Some(Said::Taken(answer)),
                None => (!is_alive).then_some(Said::Ended),
            };
        }
        if all.iter().all(Option::is_some) || limit.is_over() {
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    desks.iter().zip(&all).filter(|(_, said)| said.is_none()).for_each(|(of, _)| of.desk.withdraw(&request));
    Ok(all.into_iter().map(|said| said.unwrap_or(Said::Nothing)).collect())
}

/// What the processes have said, all together.
struct Heard {
    has_refused: bool,
    is_silent: bool,
    /// The slots that were begun again; absent if no process has taken the rules.
    slots: Option<BTreeMap<u32, Option<u64>>>,
}

impl Heard {
    /// Prints what each has said.
    fn of(desks: &[ProcessDesk], all: Vec<Said>, limit: &Limit) -> Self {
        let mut heard = Self { has_refused: false, is_silent: false, slots: None };
        for (ProcessDesk { process, .. }, said) in desks.iter().zip(all) {
            match said {
                Said::Taken(answer) => {
                    let which = match answer.slots.is_empty() {
                        true => "which runs no slot at present".to_owned(),
                        false => format!("with {}", named(answer.slots.keys().copied())),
                    };
                    let told = differences(&answer.before, &answer.now);
                    report::print(&format!("process {process}, {which}: {told}\n"));
                    heard.slots.get_or_insert_default().extend(answer.slots);
                }
                Said::Refused(why) => {
                    heard.has_refused = true;
                    report::print_error(&format!("process {process} goes on with the rules that it had: {why}\n"));
                }
                Said::Ended => {
                    heard.is_silent = true;
                    report::print_error(&format!("process {process} ended before it had answered: its log says why\n"));
                }
                Said::Nothing => {
                    heard.is_silent = true;
                    report::print_error(&format!(
                        "process {process} has not answered after {} s, and may take the rules yet: its log says what it waits \
                         for; run this again then\n",
                        limit.wait.as_secs()
                    ));
                }
            }
        }
        heard
    }

    fn is_whole(&self) -> bool {
        !self.has_refused && !self.is_silent
    }

    fn exit_code(&self, all_run: bool) -> ExitCode {
        if self.is_silent {
            report::could_not_run()
        } else if self.has_refused || !all_run {
            report::answer_is_no()
        } else {
            ExitCode::SUCCESS
        }
    }
}

/// The slots that are to run the rules.
struct Slots {
    store: JobStore,
    revision: String,
    slots: BTreeMap<u32, Slot>,
}

struct Slot {
    chain: RulesOfSlot,
    /// As for [`stands`].
    here: Option<Option<u64>>,
    stands: Stands,
}

impl Slots {
    async fn of(project: &Project, here: BTreeMap<u32, Option<u64>>, only_here: bool) -> Result<Self> {
        let root = job::archive_root(&project.config, &project.folder)?;
        let store = JobStore(root.child(JOBS_FOLDER).child(project.config.job.get_ref()));
        let revision = rules_revision(&rule_plans(&project.rules, &project.stream_names()));
        let mut slots = BTreeMap::new();
        for slot in 0..project.config.run.slots {
            let here = here.get(&slot).copied();
            let chain = match here {
                None if only_here => continue,
                Some(Some(behind)) => RulesOfSlot::behind(&slot.to_string(), behind),
                _ => RulesOfSlot::at_end(&store, &slot.to_string()).await?,
            };
            slots.insert(slot, Slot { chain, here, stands: Stands::Nothing });
        }
        Ok(Self { store, revision, slots })
    }

    /// Waits until the slots run the rules; those of other processes only if it is `patient`. Prints how each stands in the end, and says
    /// whether all run them.
    async fn wait_for(mut self, limit: &Limit, patient: bool) -> Result<bool> {
        let mut has_told = false;
        loop {
            self.look(false).await?;
            let here_run = self.all_run(|of| of.here.is_some());
            if self.all_run(|_| true) || limit.is_over() || (here_run && !patient) {
                break;
            }
            if here_run && !has_told {
                has_told = true;
                report::print_error(&format!("{}waiting for them\n", self.missing()));
            }
            tokio::time::sleep(LINKS_EVERY).await;
        }
        // A chain that was followed link by link may have moved on so far that the next one was deleted.
        self.look(true).await?;
        for (slot, of) in &self.slots {
            if let Stands::Runs(n) = of.stands {
                report::print(&format!("slot {slot}: link {n}\n"));
            }
        }
        report::print_error(&self.missing());
        Ok(self.all_run(|_| true))
    }

    /// Looks at the chains of the slots that do not run the rules, from their ends on if `anew`.
    async fn look(&mut self, anew: bool) -> Result<()> {
        for (slot, of) in self.slots.iter_mut().filter(|(_, of)| !matches!(of.stands, Stands::Runs(_))) {
            if anew {
                of.chain = RulesOfSlot::at_end(&self.store, &slot.to_string()).await?;
            }
            of.stands = stands(of.chain.look(&self.store).await?, &self.revision, of.here);
        }
        Ok(())
    }

    fn all_run(&self, which: impl Fn(&Slot) -> bool) -> bool {
        self.slots.values().filter(|of| which(of)).all(|of| matches!(of.stands, Stands::Runs(_)))
    }

    /// What there is to say of slots that do not run the rules, a line each way in which they do not.
    fn missing(&self) -> String {
        let told = [
            (
                Stands::Begins,
                "begun with these rules, and no link yet",
                "the log of the process there says what it waits for",
            ),
            (
                Stands::Other,
                "other rules",
                "put the same files in place on the machine of the process there, and run `wattline apply` on it",
            ),
            (Stands::Nothing, "no link at all", "does a process run there?"),
        ];
        let mut lines = String::new();
        for (stands, what, action) in told {
            let slots = self.slots.iter().filter(|(_, of)| of.stands == stands).map(|(slot, _)| *slot);
            let named = named(slots);
            if !named.is_empty() {
                lines.push_str(&format!("{what} in {named}: {action}\n"));
            }
        }
        lines
    }
}

/// `slot 3`, or `slots 0, 4–7`, of numbers in order; nothing if there are none.
fn named(slots: impl Iterator<Item = u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for slot in slots {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == slot => *last = slot,
            _ => runs.push((slot, slot)),
        }
    }
    let one = |(first, last): &(u32, u32)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first}–{last}"),
    };
    let each: Vec<String> = runs.iter().map(one).collect();
    match runs[..] {
        [] => String::new(),
        [(first, last)] if first == last => format!("slot {first}"),
        _ => format!("slots {}", each.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_runs_the_rules_if_a_link_behind_its_new_beginning_says_so() {
        let link = |n: u64, revision: &str| RulesLink { n, revision: revision.to_owned() };
        let (old, new) = (link(7, "old"), link(7, "new"));
        for (newest, here, expected) in [
            (None, None, Stands::Nothing),
            (None, Some(None), Stands::Begins),
            (None, Some(Some(7)), Stands::Begins),
            (Some(&new), None, Stands::Runs(7)),
            (Some(&new), Some(None), Stands::Runs(7)),
            (Some(&new), Some(Some(6)), Stands::Runs(7)),
            // It was the same before.
            (Some(&new), Some(Some(7)), Stands::Begins),
            (Some(&old), None, Stands::Other),
            (Some(&old), Some(None), Stands::Begins),
            (Some(&old), Some(Some(7)), Stands::Begins),
            // It has moved to a process with other rules.
            (Some(&old), Some(Some(6)), Stands::Other),
        ] {
            assert_eq!(stands(newest, "new", here), expected, "{newest:?}, {here:?}");
        }
    }

    #[test]
    fn slots_are_named_in_runs() {
        let named = |slots: &[u32]| named(slots.iter().copied());
        assert_eq!(named(&[]), "");
        assert_eq!(named(&[3]), "slot 3");
        assert_eq!(named(&[0, 4, 5, 6, 7, 9, 10]), "slots 0, 4–7, 9, 10");
    }
}
