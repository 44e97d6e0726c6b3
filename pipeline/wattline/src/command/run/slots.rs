//! `wattline run` of a job in several slots: this process runs those that its group gives it.
//!
//! Each slot is a job of its own on a thread of its own: it has its chain, its lanes, its inbox. One that is asked for elsewhere commits
//! what it has read before the group is answered. One that was taken by another process finds its chain sealed and ends by
//! itself; if the group goes on giving it to this process, it is begun again.
//!
//! Other rules are taken by all slots of the process or by none: all commit what they have read and begin again; if one cannot begin
//! with the new rules, all go on with those from before. Each begins from its last link, as after any stop, so whatever rules its links
//! were made by, nothing is lost and nothing comes twice. What a slot has told of a changed rule before it went back is of no use to its
//! home, which waits until all slots run the rule.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use wattline_connect::kafka::exchange::{ensure_topic, has_messages};
use wattline_connect::kafka::slots::{SlotEvent, SlotGroup, SlotGroupConfig};
use wattline_core::error::Kind;

use super::*;
use crate::adapt::archive::{JOBS_FOLDER, JobStore};

/// Before a slot is begun again that another process took, though the group gives it to this one: by then one of the two has heard
/// from the group.
const REST_AFTER_FENCE: Duration = Duration::from_secs(15);

/// How often it is looked whether a slot is to be begun.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Words of the group that may wait.
const GROUP_EVENTS: usize = 16;
/// How long slots may take to begin with other rules before they count as taken: from then on it goes on as with any start.
const TRIAL_MAX: Duration = Duration::from_secs(60);
/// How long the group may take to be left.
const LEAVE_MAX: Duration = Duration::from_secs(3);

/// How a slot came to its end.
enum Outcome {
    /// It could not begin.
    NotBegun(anyhow::Error),
    /// It ran.
    Ran(wattline_runtime::Result<RunSummary>),
}

impl Outcome {
    /// Why it does not run, with all causes.
    fn reason(self) -> String {
        match self {
            Self::NotBegun(error) => format!("{error:#}"),
            Self::Ran(Err(error)) => format!("{:#}", anyhow::Error::from(error)),
            Self::Ran(Ok(_)) => "it has ended".to_owned(),
        }
    }
}

/// A slot that is being run.
struct Slot {
    /// Tells it to drain and end.
    end: watch::Sender<bool>,
    progress: Arc<Progress>,
    /// It has taken over its past.
    has_begun: Arc<AtomicBool>,
}

impl Slot {
    fn has_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }
}

/// Counters of all slots that were run here, with whether they still are.
type Counters = Arc<Mutex<Vec<(u32, Arc<Progress>, bool)>>>;

type Finished = (u32, Outcome);

/// What slots are run by.
struct Outside<'a> {
    events: &'a mut mpsc::Receiver<SlotEvent>,
    look: tokio::time::Interval,
    stop: &'a watch::Receiver<bool>,
}

/// The next thing that happens.
enum Happening {
    /// The group says something, or is gone.
    Event(Option<SlotEvent>),
    Finished(Finished),
    /// It is time to look whether a slot is to be begun.
    Look,
    Stop,
}

/// What became of other rules.
enum Trial {
    Taken,
    Failed(String),
    /// The process has been told to stop, or its input has ended.
    Over,
}

struct Host {
    project: Arc<Project>,
    how: RunHow,
    running: BTreeMap<u32, Slot>,
    outcomes: FuturesUnordered<JoinHandle<Finished>>,
    /// What the group gives to this process.
    taken: BTreeSet<u32>,
    /// Slots to be begun, and when.
    due: BTreeMap<u32, Instant>,
    /// The last link of each slot that has stopped in order.
    last_links: BTreeMap<u32, u64>,
    counters: Counters,
    /// Some slot has come so far that it runs: what keeps others from that is waited for from now on.
    has_run: Arc<AtomicBool>,
    /// The bounded input of all slots has ended.
    ended: bool,
}

/// Runs slots until the input of all has ended, or the process is told to stop.
pub(super) async fn run(
    project: Project,
    mut reloads: Reloads,
    how: RunHow,
    stop: watch::Receiver<bool>,
) -> Result<ExitCode> {
    let started = Instant::now();
    refuse_another_jobs_topic(&project).await?;
    let (mut events, group) = join_group(&project).await?;
    let counters = Counters::default();
    let _beside = Beside(vec![
        tokio::spawn({
            let counters = Arc::clone(&counters);
            status::show(move || Arc::new(sum_of(&counters)))
        }),
        tokio::spawn(allocator::keep_below(project.config.run.memory.0)),
    ]);
    let mut host = Host {
        project: Arc::new(project),
        how,
        running: BTreeMap::new(),
        outcomes: FuturesUnordered::new(),
        taken: BTreeSet::new(),
        due: BTreeMap::new(),
        last_links: BTreeMap::new(),
        counters,
        has_run: Arc::default(),
        ended: false,
    };
    let outcome = {
        let mut outside = Outside { events: &mut events, look: tokio::time::interval(LOOK_EVERY), stop: &stop };
        host.serve(&mut outside, &mut reloads).await
    };
    host.stop_all().await;
    drop(events);
    // Others begin with the slots as soon as the group has been left.
    tokio::time::timeout(LEAVE_MAX, group).await.map(drop).unwrap_or_default();
    let summary =
        RunSummary { ended: host.ended, last_epoch: 0, sample_alerts: Vec::new(), alerts_by_rule: BTreeMap::new() };
    outcome?;
    report::print(&told(&summary, &sum_of(&host.counters), started.elapsed()));
    Ok(ExitCode::SUCCESS)
}

/// What an earlier job of this name has told must not be taken for what this one tells. A link comes before what it tells, so the
/// chains are looked for after the messages.
async fn refuse_another_jobs_topic(project: &Project) -> Result<()> {
    let exchange = job::exchange_config(&project.config)?;
    let topic = exchange.topic.clone();
    let has_messages = tokio::task::spawn_blocking(move || -> Result<bool> {
        ensure_topic(&exchange)?;
        Ok(has_messages(&exchange))
    });
    if !has_messages.await.context("looking at the exchange")?? {
        return Ok(());
    }
    let root = job::archive_root(&project.config, &project.folder)?;
    let store = JobStore(root.child(JOBS_FOLDER).child(project.config.job.get_ref()));
    if store.slots().await?.is_empty() {
        anyhow::bail!(
            "topic `{topic}` holds messages, and the archive `{}` has no job `{}` that has told them: they are of another archive. Delete \
             the topic if that one is no more, or name the job otherwise",
            root.location(),
            project.config.job.get_ref()
        );
    }
    Ok(())
}

fn sum_of(counters: &Counters) -> Progress {
    let all = counters.lock().unwrap_or_else(PoisonError::into_inner);
    Progress::of_all(all.iter().map(|(_, progress, runs)| (progress.as_ref(), *runs)))
}

/// Joins the group on a thread of its own, which leaves it when nobody listens any more.
async fn join_group(project: &Project) -> Result<(mpsc::Receiver<SlotEvent>, JoinHandle<()>)> {
    let exchange = job::exchange_config(&project.config)?;
    let group_id = project.config.kafka.as_ref().and_then(|kafka| kafka.group_id.clone());
    let group_id = group_id.unwrap_or_else(|| format!("wattline-{}", project.config.job.get_ref()));
    let config = SlotGroupConfig { exchange, group_id: format!("{group_id}-slots") };
    let (tell, events) = mpsc::channel(GROUP_EVENTS);
    let group = tokio::task::spawn_blocking(move || -> Result<SlotGroup> {
        ensure_topic(&config.exchange)?;
        Ok(SlotGroup::join(&config, tell)?)
    })
    .await
    .context("joining the group of slots")??;
    let serving = tokio::task::spawn_blocking(move || {
        while group.is_heard() {
            if let Err(error) = group.serve() {
                tracing::error!("the group of slots cannot be served any more: {error}");
                return;
            }
        }
    });
    Ok((events, serving))
}

impl Host {
    async fn serve(&mut self, outside: &mut Outside<'_>, reloads: &mut Reloads) -> Result<()> {
        loop {
            let project = Arc::clone(&self.project);
            let mut change = Box::pin(reloads.next(&project));
            let (next, requests) = loop {
                let happening = tokio::select! {
                    happening = self.happening(outside) => happening?,
                    (next, requests) = &mut change => break (Arc::new(next), requests),
                };
                if !self.take(happening).await? {
                    return Ok(());
                }
            };
            drop(change);
            if !self.change(next, &requests, reloads, outside).await? {
                return Ok(());
            }
        }
    }

    /// Nothing is lost if it is not waited for.
    async fn happening(&mut self, outside: &mut Outside<'_>) -> Result<Happening> {
        Ok(tokio::select! {
            event = outside.events.recv() => Happening::Event(event),
            Some(finished) = self.outcomes.next() => Happening::Finished(finished.context("a slot")?),
            _ = outside.look.tick() => Happening::Look,
            () = told_to_stop(outside.stop) => Happening::Stop,
        })
    }

    /// Does what is to be done; says whether there is more to come.
    async fn take(&mut self, happening: Happening) -> Result<bool> {
        match happening {
            Happening::Event(Some(event)) => self.take_event(event).await?,
            Happening::Event(None) => anyhow::bail!("the group of slots cannot be reached any more"),
            Happening::Finished(finished) => self.take_outcome(finished)?,
            Happening::Look => self.begin_due(),
            Happening::Stop => return Ok(false),
        }
        Ok(!(self.ended && self.running.is_empty()))
    }

    async fn take_event(&mut self, event: SlotEvent) -> Result<()> {
        match event {
            SlotEvent::Taken(slots) => {
                tracing::info!(?slots, "the group gives this process slots to run");
                self.taken.extend(&slots);
                self.due.extend(slots.iter().map(|slot| (*slot, Instant::now())));
                self.begin_due();
            }
            SlotEvent::Leave(slots, left) => {
                tracing::info!(?slots, "the group asks for slots, which commit what they have read and stop here");
                self.stop(&slots).await?;
                drop(left);
            }
            SlotEvent::Lost(slots) => {
                tracing::warn!(
                    ?slots,
                    "the group has given slots of this process to others, as it did not hear of it for too long"
                );
                self.stop(&slots).await?;
            }
            SlotEvent::Trouble(message) => tracing::warn!("group of slots: {message}"),
        }
        Ok(())
    }

    /// Begins the slots whose time has come.
    fn begin_due(&mut self) {
        let now = Instant::now();
        let due: Vec<u32> = self.due.iter().filter(|(_, at)| **at <= now).map(|(slot, _)| *slot).collect();
        for slot in due {
            self.due.remove(&slot);
            if self.taken.contains(&slot) && !self.running.contains_key(&slot) && !self.ended {
                self.begin(slot);
            }
        }
    }

    fn begin(&mut self, slot: u32) {
        let (end, shutdown) = watch::channel(false);
        let progress = Arc::new(Progress::default());
        let place = Place { slot, of: self.project.config.run.slots };
        let (project, how) = (Arc::clone(&self.project), self.how.clone());
        let options = how.options(Some(place), &progress, shutdown.clone());
        let (tasks, has_run) = (tokio::runtime::Handle::current(), Arc::clone(&self.has_run));
        let has_begun = Arc::<AtomicBool>::default();
        let begun = Arc::clone(&has_begun);
        // A slot merges and commits on a thread of its own.
        self.outcomes.push(tokio::task::spawn_blocking(move || {
            #[expect(clippy::disallowed_methods, reason = "the thread has nothing else to do, and no task waits on it")]
            tasks.block_on(async {
                let job = match job::build(&project, options).await {
                    Ok(job) => how.around(job),
                    Err(error) => return (slot, Outcome::NotBegun(error)),
                };
                tokio::select! {
                    running = Box::pin(wattline_runtime::start(job)) => match running {
                        Ok(running) => {
                            has_run.store(true, Ordering::Relaxed);
                            begun.store(true, Ordering::Relaxed);
                            (slot, Outcome::Ran(running.serve().await))
                        }
                        Err(error) => (slot, Outcome::Ran(Err(error))),
                    },
                    () = told_to_stop(&shutdown) => (slot, Outcome::NotBegun(anyhow::anyhow!("stopped before it had begun"))),
                }
            })
        }));
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.push((slot, Arc::clone(&progress), true));
        drop(counters);
        self.running.insert(slot, Slot { end, progress, has_begun });
    }

    /// Has slots commit what they have read, and waits until they have.
    async fn stop(&mut self, slots: &[u32]) -> Result<()> {
        for slot in slots {
            self.taken.remove(slot);
            self.due.remove(slot);
        }
        self.drain(|slot| slots.contains(&slot)).await
    }

    /// Each slot commits what it has read, whatever becomes of the others.
    async fn stop_all(&mut self) {
        while !self.outcomes.is_empty() {
            if let Err(error) = self.drain(|_| true).await {
                tracing::error!(
                    "a slot did not stop in order, and goes on from its last link with its next start: {error:#}"
                );
            }
        }
    }

    async fn drain(&mut self, which: impl Fn(u32) -> bool) -> Result<()> {
        for (_, of) in self.running.iter().filter(|(slot, _)| which(**slot)) {
            of.end.send_replace(true);
        }
        while self.running.keys().any(|slot| which(*slot)) {
            let Some(finished) = self.outcomes.next().await else { return Ok(()) };
            self.take_outcome(finished.context("a slot")?)?;
        }
        Ok(())
    }

    /// A slot runs no more; gives what it was.
    fn note_end(&mut self, slot: u32, outcome: &Outcome) -> Option<Slot> {
        let of = self.running.remove(&slot)?;
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            // It has counted nothing.
            Outcome::NotBegun(_) => counters.retain(|(_, progress, _)| !Arc::ptr_eq(progress, &of.progress)),
            Outcome::Ran(_) => counters
                .iter_mut()
                .filter(|(_, progress, _)| Arc::ptr_eq(progress, &of.progress))
                .for_each(|of| of.2 = false),
        }
        drop(counters);
        Some(of)
    }

    fn take_outcome(&mut self, (slot, outcome): Finished) -> Result<()> {
        let Some(of) = self.note_end(slot, &outcome) else { return Ok(()) };
        let was_told = *of.end.borrow();
        match outcome {
            Outcome::Ran(Ok(summary)) => {
                self.last_links.insert(slot, summary.last_epoch);
                self.ended |= summary.ended;
                tracing::info!(slot, "{}", if summary.ended { "the input has ended" } else { "stopped" });
            }
            Outcome::Ran(Err(error)) if error.kind() == Kind::Fenced => {
                tracing::warn!(slot, "another process runs this slot now");
                self.due.insert(slot, Instant::now() + REST_AFTER_FENCE);
            }
            // Nobody wants it here any more; who does meets the same.
            Outcome::Ran(Err(error)) if was_told && !of.has_begun() => {
                tracing::warn!(slot, "the slot could not begin before it was stopped: {error}");
            }
            Outcome::Ran(Err(error)) => return Err(anyhow::Error::from(error).context(format!("slot {slot}"))),
            Outcome::NotBegun(_) if was_told => {}
            Outcome::NotBegun(error) if self.has_run.load(Ordering::Relaxed) => {
                tracing::warn!(slot, "the slot cannot begin and keeps trying: {error:#}");
                self.due.insert(slot, Instant::now() + REST);
            }
            Outcome::NotBegun(error) => return Err(error),
        }
        Ok(())
    }

    /// Goes on with other rules, or as before if a slot cannot begin with them; says whether there is more to come.
    async fn change(
        &mut self,
        next: Arc<Project>,
        requests: &[String],
        reloads: &Reloads,
        outside: &mut Outside<'_>,
    ) -> Result<bool> {
        report::diagnostics(&next.warnings, &next.texts);
        self.last_links.clear();
        self.drain(|_| true).await?;
        let before = std::mem::replace(&mut self.project, next);
        let slots = self.taken.iter().map(|slot| (*slot, self.last_links.get(slot).copied())).collect();
        self.begin_all();
        match self.try_out(outside).await? {
            Trial::Taken => reloads.taken_by_slots(requests, &before, &self.project, slots),
            Trial::Failed(why) => {
                self.drain(|_| true).await?;
                self.project = before;
                self.begin_all();
                reloads.refuse(requests, &why, &self.project);
            }
            Trial::Over => return Ok(false),
        }
        Ok(true)
    }

    /// Begins with all slots that the group gives to this process.
    fn begin_all(&mut self) {
        self.due.extend(self.taken.iter().map(|slot| (*slot, Instant::now())));
        self.begin_due();
    }

    /// Waits until all slots have begun with other rules. The group is heard meanwhile.
    async fn try_out(&mut self, outside: &mut Outside<'_>) -> Result<Trial> {
        let since = Instant::now();
        while since.elapsed() < TRIAL_MAX && !self.running.values().all(Slot::has_begun) {
            match self.happening(outside).await? {
                Happening::Finished((slot, outcome)) if self.could_not_begin(slot, &outcome) => {
                    self.note_end(slot, &outcome);
                    return Ok(Trial::Failed(format!("slot {slot} cannot begin with them: {}", outcome.reason())));
                }
                happening => {
                    if !self.take(happening).await? {
                        return Ok(Trial::Over);
                    }
                }
            }
        }
        Ok(Trial::Taken)
    }

    /// Whether a slot has failed to begin: not as it was stopped, nor as another process runs it.
    fn could_not_begin(&self, slot: u32, outcome: &Outcome) -> bool {
        let is_awaited = |of: &Slot| !of.has_begun() && !*of.end.borrow();
        self.running.get(&slot).is_some_and(is_awaited)
            && match outcome {
                Outcome::NotBegun(_) => true,
                Outcome::Ran(Err(error)) => error.kind() != Kind::Fenced,
                Outcome::Ran(Ok(_)) => false,
            }
    }
}
