//! A running job takes other rules: when `wattline apply` asks for it, or at SIGHUP.
//!
//! ```text
//! wattline apply ── checks the folder ── .wattline/<job>-<slot>/wanted-<request> ──▶ wattline run: loads the folder again
//!        ▲                                                                             │ a mistake: goes on as before
//!        └──────────────────────── .wattline/<job>-<slot>/answer-<request> ◀───────────┘ else: commits what was read, goes on with the new rules
//! ```
//! State is addressed by what a rule computes, so rules that did not change go on as if nothing had been, in the next epoch. The files stand
//! beside the configuration: whoever may change the rules may ask for them. Requests that come together get one answer each, of one change.
//!
//! In a job of several slots each process is asked, at a desk of its own ([`process_desk`]), for all slots that it runs. Its answer is
//! not yet the whole: whether a slot runs the rules is said by its links, which is where `wattline apply` looks then.

use std::collections::BTreeMap;
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};
use wattline_sql::{Diagnostic, UserFunctions};

use crate::config::Config;
use crate::project::{self, Project};
use crate::report;

mod process_desk;

use process_desk::OwnDesk;
pub(crate) use process_desk::{ProcessDesk, living};

/// How often a job looks whether other rules are wanted.
const LOOK_EVERY: Duration = Duration::from_millis(500);

const WANTED: &str = "wanted-";
const ANSWER: &str = "answer-";
const DRAFT: &str = ".draft";

/// The rules of a job: what each computes, by id.
pub(crate) type Rules = BTreeMap<String, String>;

/// What a job says of the rules that it was asked to take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Why it goes on with the rules that it had; absent if it has taken the new ones.
    pub(crate) refused: Option<String>,
    /// The rules before.
    pub(crate) before: Rules,
    /// The rules that run now.
    pub(crate) now: Rules,
    /// In a job of several slots: those that the process began again, with the last link of each before that if it is known.
    #[serde(default)]
    pub(crate) slots: BTreeMap<u32, Option<u64>>,
}

/// The folder in which a job is asked and answers.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    folder: PathBuf,
}

impl Desk {
    pub(crate) fn of(folder: &Path, config: &Config) -> Self {
        let name = format!("{}-{}", config.job.get_ref(), config.slot);
        Self { folder: folder.join(".wattline").join(name) }
    }

    /// Asks for the rules of the folder.
    pub(crate) fn ask(&self, request: &str) -> Result<()> {
        self.write(&format!("{WANTED}{request}"), request)
    }

    /// Gives up to wait for an answer.
    pub(crate) fn withdraw(&self, request: &str) {
        self.remove(&format!("{WANTED}{request}"));
    }

    /// The answer, if there is one; it is told once.
    pub(crate) fn answer(&self, request: &str) -> Option<Answer> {
        let name = format!("{ANSWER}{request}");
        let answer = serde_json::from_slice(&fs::read(self.folder.join(&name)).ok()?).ok()?;
        self.remove(&name);
        Some(answer)
    }

    fn take_requests(&self) -> Vec<String> {
        let requests: Vec<String> = self.names(WANTED).collect();
        requests.iter().for_each(|request| self.withdraw(request));
        requests
    }

    /// Whoever asked before there was a job has given up.
    fn clear(&self) {
        self.take_requests();
        self.names(ANSWER).for_each(|request| self.remove(&format!("{ANSWER}{request}")));
    }

    /// What follows the beginning in the names of files.
    fn names(&self, beginning: &'static str) -> impl Iterator<Item = String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.filter_map(move |entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            name.strip_prefix(beginning).filter(|rest| !rest.ends_with(DRAFT)).map(str::to_owned)
        })
    }

    fn remove(&self, name: &str) {
        // What was taken meanwhile is gone already.
        fs::remove_file(self.folder.join(name)).unwrap_or_default();
    }

    fn tell(&self, requests: &[String], answer: &Answer) {
        for request in requests {
            let text = serde_json::to_string(answer).context("an answer");
            if let Err(error) = text.and_then(|text| self.write(&format!("{ANSWER}{request}"), &text)) {
                tracing::warn!(error = %format!("{error:#}"), "whoever asked for other rules gets no answer");
            }
        }
    }

    /// Whole or not at all.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        fs::create_dir_all(&self.folder).with_context(|| format!("cannot make `{}`", self.folder.display()))?;
        let path = self.folder.join(name);
        let draft = self.folder.join(format!("{name}{DRAFT}"));
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, &path))
            .with_context(|| format!("cannot write `{}`", path.display()))
    }
}

/// What each rule of a project computes.
fn rules_of(project: &Project) -> Rules {
    let of = |rule: &wattline_sql::CompiledRule| {
        (rule.header.id.clone(), format!("{} {}", rule.header.version, rule.fingerprint))
    };
    project.rules.rules().iter().map(of).collect()
}

/// Waits for other rules of a running job.
pub(crate) struct Reloads {
    config: PathBuf,
    functions: UserFunctions,
    desk: Desk,
    /// In a job of several slots: its desk, unless none can be made.
    _own: Option<OwnDesk>,
    /// Absent on a terminal, where it says that the terminal is gone, and ends the process.
    hangup: Option<Signal>,
}

impl std::fmt::Debug for Reloads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloads").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A job goes on with another project.
pub(crate) struct Change {
    /// The one that it had.
    pub(crate) before: Project,
    /// Who waits for an answer.
    pub(crate) requests: Vec<String>,
}

impl Reloads {
    /// # Errors
    /// If the signal cannot be listened to.
    pub(crate) fn of(config: &Path, functions: &UserFunctions, project: &Project) -> Result<Self> {
        let own = if project.config.run.slots > 1 { own_desk(project) } else { None };
        let desk = own.as_ref().map_or_else(|| Desk::of(&project.folder, &project.config), OwnDesk::desk);
        if own.is_none() {
            desk.clear();
        }
        let hangup = if std::io::stdin().is_terminal() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self { config: config.to_owned(), functions: functions.clone(), desk, _own: own, hangup })
    }

    /// Comes back with other rules for this project, and with the requests for them; mistakes in them are printed, and it goes on
    /// waiting.
    pub(crate) async fn next(&mut self, project: &Project) -> (Project, Vec<String>) {
        loop {
            let requests = self.wanted().await;
            let (config, functions) = (self.config.clone(), self.functions.clone());
            let loaded = tokio::task::spawn_blocking(move || project::load(&config, &functions)).await;
            let refused = match loaded {
                Ok(Ok(next)) => match other_place(&project.config, &next.config) {
                    None => return (next, requests),
                    Some(what) => format!("{what} has changed: stop the job and start it again"),
                },
                Ok(Err(refused)) => {
                    report::diagnostics(&refused.diagnostics, &refused.texts);
                    first_of(&refused.diagnostics)
                }
                Err(panic) => panic.to_string(),
            };
            self.refuse(&requests, &refused, project);
        }
    }

    /// Says that the rules are not taken.
    pub(crate) fn refuse(&self, requests: &[String], refused: &str, project: &Project) {
        tracing::warn!("the job goes on with the rules that it has: {refused}");
        let (before, now) = (rules_of(project), rules_of(project));
        self.desk.tell(requests, &Answer { refused: Some(refused.to_owned()), before, now, slots: BTreeMap::new() });
    }

    /// Says that the rules are taken.
    pub(crate) fn taken(&self, change: &Change, project: &Project) {
        let (before, now) = (rules_of(&change.before), rules_of(project));
        tracing::info!("the job goes on with other rules: {}", differences(&before, &now));
        self.desk.tell(&change.requests, &Answer { refused: None, before, now, slots: BTreeMap::new() });
    }

    /// The same of the slots of a process.
    pub(crate) fn taken_by_slots(
        &self,
        requests: &[String],
        before: &Project,
        now: &Project,
        slots: BTreeMap<u32, Option<u64>>,
    ) {
        let (before, now) = (rules_of(before), rules_of(now));
        tracing::info!("the slots of this process go on with other rules: {}", differences(&before, &now));
        self.desk.tell(requests, &Answer { refused: None, before, now, slots });
    }

    /// Says that the job could not start with them; gives back what it had.
    pub(crate) fn give_back(&self, change: Change, error: &anyhow::Error) -> Project {
        self.refuse(&change.requests, &format!("{error:#}"), &change.before);
        change.before
    }

    /// The requests; none after a signal.
    async fn wanted(&mut self) -> Vec<String> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let hangup = async {
                match &mut self.hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = hangup => return Vec::new(),
                _ = look.tick() => {}
            }
            let requests = self.desk.take_requests();
            if !requests.is_empty() {
                return requests;
            }
        }
    }
}

/// A process that nobody can ask so is told by a signal.
fn own_desk(project: &Project) -> Option<OwnDesk> {
    let own = OwnDesk::open(&project.folder, &project.config);
    own.inspect_err(|error| tracing::info!("`wattline apply` cannot reach this process, SIGHUP can: {error:#}")).ok()
}

fn first_of(diagnostics: &[Diagnostic]) -> String {
    let errors = || diagnostics.iter().filter(|of| of.severity == wattline_sql::Severity::Error);
    let first = errors().next().map(|of| format!("{}: {}", of.file, of.message)).unwrap_or_default();
    match errors().count() {
        0 | 1 => first,
        count => format!("{first} (and {} more)", count - 1),
    }
}

/// What a job cannot change while it runs, if that has changed.
fn other_place(before: &Config, now: &Config) -> Option<&'static str> {
    if before.job.get_ref() != now.job.get_ref() {
        return Some("the name of the job");
    }
    if before.slot != now.slot {
        return Some("the slot");
    }
    if before.run.slots != now.run.slots {
        return Some("the number of slots");
    }
    (before.archive.url != now.archive.url).then_some("the archive")
}

/// `2 added (a, b), 1 changed (c)`.
pub(crate) fn differences(before: &Rules, now: &Rules) -> String {
    let added: Vec<&str> = now.keys().filter(|id| !before.contains_key(*id)).map(String::as_str).collect();
    let removed: Vec<&str> = before.keys().filter(|id| !now.contains_key(*id)).map(String::as_str).collect();
    let is_changed = |(id, of): &(&String, &String)| before.get(*id).is_some_and(|was| was != *of);
    let changed: Vec<&str> = now.iter().filter(is_changed).map(|(id, _)| id.as_str()).collect();
    let told = [("added", added), ("removed", removed), ("changed", changed)];
    let told = told.into_iter().filter(|(_, ids)| !ids.is_empty());
    let told: Vec<String> = told.map(|(what, ids)| format!("{} {what} ({})", ids.len(), ids.join(", "))).collect();
    if told.is_empty() { "no rule computes anything else than before".to_owned() } else { told.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Rules {
        text.split_whitespace().filter_map(|rule| rule.split_once('=')).map(|(a, b)| (a.into(), b.into())).collect()
    }

    #[test]
    fn differences_name_what_is_new_gone_and_other() {
        let told = differences(&rules("a=1 b=1 c=1"), &rules("b=2 c=1 d=1 e=1"));
        assert_eq!(told, "2 added (d, e), 1 removed (a), 1 changed (b)");
        assert_eq!(differences(&rules("a=1"), &rules("a=1")), "no rule computes anything else than before");
    }

    #[test]
    fn requests_are_taken_once_and_each_is_answered() {
        let folder = tempfile::tempdir().expect("a folder");
        let desk = Desk { folder: folder.path().join("job") };
        assert_eq!(desk.take_requests(), Vec::<String>::new());
        desk.ask("r1").and_then(|()| desk.ask("r2")).expect("asked");
        let mut requests = desk.take_requests();
        requests.sort();
        assert_eq!((requests.clone(), desk.take_requests().len()), (vec!["r1".to_owned(), "r2".to_owned()], 0));
        let (before, now) = (rules("a=1"), rules("a=2"));
        let answer = Answer { refused: None, before, now, slots: BTreeMap::from([(3, Some(17)), (5, None)]) };
        desk.tell(&requests, &answer);
        assert_eq!(
            (desk.answer("r2"), desk.answer("r2"), desk.answer("r1")),
            (Some(answer.clone()), None, Some(answer))
        );
    }
}
