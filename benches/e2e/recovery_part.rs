//! One part of the measurement: a job in one or two slots with a process for each, filled, killed and killed again, and looked over.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};

use crate::accounts::Job;
use crate::chains::{Chains, Stored};
use crate::child_process::{ChildProcess, wait_until};
use crate::kafka_broker::TestBroker;
use crate::pulses::Pulses;
use crate::recovery_job::{self, PARTITIONS, Setup, TABLE, TOPIC};
use crate::results::say;
use crate::scratch::Scratch;
use crate::steady::{self, Sent};
use crate::{Settings, holdings, tree};

/// Devices of the first burst, from which the size of the state is reckoned.
const FIRST_DEVICES: u64 = 500_000;
const FILL_LIMIT: Duration = Duration::from_secs(1_800);
const MOMENT_LIMIT: Duration = Duration::from_secs(300);
const STOP_LIMIT: Duration = Duration::from_secs(120);
/// A job is in step with its input if what is out is no older.
const IN_STEP_MS: u64 = 5_000;
/// So much longer after a checkpoint is the next kill each time, up to what is between two checkpoints: more has to be read again.
const KILL_LATER_BY: Duration = Duration::from_secs(6);
const BETWEEN_CHECKPOINTS: Duration = Duration::from_secs(30);
/// What a process says that has become a member of the group of slots and was given some.
const GIVEN_SLOTS: &str = "the group gives this process slots";

/// A job with its processes.
pub(crate) struct Part<'a> {
    name: &'static str,
    alerts: String,
    program: PathBuf,
    folder: Scratch,
    broker: &'a TestBroker,
    settings: &'a Settings,
    chains: Chains,
}

/// What one kill came to, in seconds.
struct Outcome {
    /// All slots have put a link.
    link_s: f64,
    /// An alert of a window that ended after the kill is out.
    alert_s: f64,
}

impl<'a> Part<'a> {
    pub(crate) fn new(
        broker: &'a TestBroker,
        settings: &'a Settings,
        name: &'static str,
        slots: usize,
        properties: &str,
    ) -> Result<Self> {
        let folder = Scratch::new(name)?;
        let alerts = format!("{name}-alerts");
        broker.create_topic(&alerts, PARTITIONS, &[])?;
        let memory_gb = settings.memory_gb * slots as u64;
        let bootstrap = broker.bootstrap();
        let setup = Setup { job: name, bootstrap: &bootstrap, alerts: &alerts, slots, memory_gb, properties };
        recovery_job::write(folder.path(), &setup)?;
        let chains = Chains { folder: folder.join(&format!("archive/_wattline/{name}")), slots };
        Ok(Self { name, alerts, program: tree::wattline()?, folder, broker, settings, chains })
    }

    fn job(&self) -> Job<'_> {
        Job {
            program: &self.program,
            folder: self.folder.path(),
            broker: self.broker,
            topic: TOPIC,
            partitions: PARTITIONS,
            table: TABLE,
        }
    }

    /// Fills the job, measures, and looks whether everything is there once. `devices` and `sent` say what the topic holds, before
    /// and after.
    pub(crate) fn run(&self, devices: &mut u64, sent: &mut Sent) -> Result<Value> {
        self.job().answer(&["check"])?;
        let mut running = (0..self.chains.slots).map(|number| self.start(number, 0)).collect::<Result<Vec<_>>>()?;
        let stored = self.fill(&mut running, devices, sent)?;
        say(&format!(
            "{}: state of {:.0} MiB in the store, of {devices} devices; {:.0} MiB of memory",
            self.name,
            stored.state_bytes as f64 / 1_048_576.0,
            resident_bytes(&running)? as f64 / 1_048_576.0,
        ));
        if running.len() > 1 {
            (0..running.len()).try_for_each(|number| self.wait_for_slots(number, 0))?;
        }
        let (outcomes, steady) = self.measure_under_load(&mut running, *devices)?;
        sent.records += steady.records;
        self.settled(&mut running)?;
        running.iter().try_for_each(|process| process.signal("TERM"))?;
        for process in &mut running {
            let status = process.wait(STOP_LIMIT)?;
            ensure!(status.success(), "a process ended with {status}:\n{}", process.log_tail());
        }
        let job = self.job();
        job.every_record_is_there_once(sent)?;
        let alerts = job.alerts_are_out_once(&self.alerts)?;
        job.answer(&["archive", "verify"])?;
        say(&format!("{}: {} records and {alerts} alerts, each there once", self.name, sent.records));
        self.report(&outcomes, &stored, *devices)
    }

    /// Process `number`, for the `life`th time.
    fn start(&self, number: usize, life: usize) -> Result<ChildProcess> {
        ChildProcess::start(&self.program, &["run"], self.folder.path(), &self.log_of(number, life))
    }

    fn log_of(&self, number: usize, life: usize) -> PathBuf {
        self.folder.join(&format!("process-{number}-{life}.log"))
    }

    /// Feeds the job until its checkpoints have stored enough.
    fn fill(&self, running: &mut [ChildProcess], devices: &mut u64, sent: &mut Sent) -> Result<Stored> {
        let wanted = self.settings.state_bytes;
        loop {
            let mut more = FIRST_DEVICES;
            if *devices > 0 {
                let stored = self.settled(running)?;
                if stored.state_bytes >= wanted {
                    return Ok(stored);
                }
                // A little more than what is lacking, as all devices take the same.
                let of_each = stored.state_bytes.checked_div(*devices).unwrap_or(1).max(1);
                more = ((wanted - stored.state_bytes) / of_each + 1).max(10_000) * 51 / 50;
            }
            sent.records += recovery_job::burst(self.broker, *devices..*devices + more)?.records;
            *devices += more;
        }
    }

    /// Waits until checkpoints have stored everything that is in the topic.
    fn settled(&self, running: &mut [ChildProcess]) -> Result<Stored> {
        let ends = self.job().ends()?;
        let mut stored = self.stored_when(running, FILL_LIMIT, |stored| stored.covers(&ends))?;
        if self.chains.slots > 1 {
            // What a slot has read may only now be on its way to the homes of the rules.
            for _ in 0..2 {
                stored = self.stored_when(running, MOMENT_LIMIT, |now| now.is_after(&stored))?;
            }
        }
        Ok(stored)
    }

    fn stored_when(
        &self,
        running: &mut [ChildProcess],
        limit: Duration,
        is_it: impl Fn(&Stored) -> bool,
    ) -> Result<Stored> {
        wait_until(limit, || {
            all_run(running)?;
            Ok(self.chains.stored(TOPIC, PARTITIONS)?.filter(&is_it))
        })
        .with_context(|| format!("no such checkpoint; links are {:?}", self.chains.newest()))
    }

    fn measure_under_load(&self, running: &mut [ChildProcess], devices: u64) -> Result<(Vec<Outcome>, Sent)> {
        let (stop, pulses) = (AtomicBool::new(false), Pulses::default());
        thread::scope(|scope| {
            let producing = scope.spawn(|| {
                steady::produce(self.broker, TOPIC, self.settings.rate, &stop, |number, now_ms, text| {
                    recovery_job::any_event(number, devices, now_ms, text)
                })
            });
            let watching = scope.spawn(|| pulses.watch(self.broker, &self.alerts, PARTITIONS, &stop));
            let outcomes = (1..=self.settings.runs)
                .map(|run| self.kill(running, &pulses, run).with_context(|| format!("{}, run {run}", self.name)))
                .collect::<Result<Vec<_>>>();
            stop.store(true, Ordering::Relaxed);
            let sent = producing.join().map_err(|_| anyhow!("the producer panicked"))?;
            watching.join().map_err(|_| anyhow!("the reader of alerts panicked"))??;
            Ok((outcomes?, sent?))
        })
    }

    /// Waits for a moment at which all is as it should be, kills one process, and looks how long it takes until it is so again.
    fn kill(&self, running: &mut [ChildProcess], pulses: &Pulses, run: usize) -> Result<Outcome> {
        self.wait_for_step(running, pulses)?;
        let before = self.stored_when(running, MOMENT_LIMIT, |_stored| true)?;
        self.stored_when(running, MOMENT_LIMIT, |now| now.is_after(&before))?;
        let later = KILL_LATER_BY * u32::try_from(run)?;
        rest(Duration::from_millis(u64::try_from(later.as_millis() % BETWEEN_CHECKPOINTS.as_millis())?));
        let victim = run % running.len();
        let (killed, killed_ms) = (Instant::now(), steady::now_ms()?);
        running[victim].kill9()?;
        let links = self.chains.newest()?;
        // Started again at once if it is alone; else the other one is to take over.
        let is_alone = running.len() == 1;
        let begun = if is_alone { Instant::now() } else { killed };
        if is_alone {
            running[victim] = self.start(victim, run)?;
        }
        let outcome = self
            .back_again(running, (!is_alone).then_some(victim), &links, begun, || pulses.newest_end_ms() > killed_ms)?;
        say(&format!(
            "{} {run}: all slots have put a link after {:.2} s, the first new alert is out after {:.2} s",
            self.name, outcome.link_s, outcome.alert_s
        ));
        if !is_alone {
            running[victim] = self.start(victim, run)?;
            self.wait_for_slots(victim, run)?;
        }
        Ok(outcome)
    }

    /// Waits until the group has given a process slots to run.
    fn wait_for_slots(&self, number: usize, life: usize) -> Result<()> {
        let log = self.log_of(number, life);
        wait_until(MOMENT_LIMIT, || {
            // The log is made by the process, in its own time.
            let said = if log.exists() { fs::read_to_string(&log)? } else { String::new() };
            Ok(said.contains(GIVEN_SLOTS).then_some(()))
        })
        .with_context(|| format!("the group gives process {number} no slots"))
    }

    /// Waits until all slots have put a link behind `links`, and a new alert is out. The process `dead` need not run.
    fn back_again(
        &self,
        running: &mut [ChildProcess],
        dead: Option<usize>,
        links: &[u64],
        begun: Instant,
        is_told: impl Fn() -> bool,
    ) -> Result<Outcome> {
        let (mut link_s, mut alert_s) = (None, None);
        wait_until(MOMENT_LIMIT, || {
            for (_, process) in running.iter_mut().enumerate().filter(|(number, _)| Some(*number) != dead) {
                all_run(std::slice::from_mut(process))?;
            }
            let now_s = begun.elapsed().as_secs_f64();
            if link_s.is_none() && self.chains.newest()?.iter().zip(links).all(|(now, before)| now > before) {
                link_s = Some(now_s);
            }
            if alert_s.is_none() && is_told() {
                alert_s = Some(now_s);
            }
            Ok(link_s.zip(alert_s).map(|(link_s, alert_s)| Outcome { link_s, alert_s }))
        })
    }

    /// Waits until what is out is as new as it can be.
    fn wait_for_step(&self, running: &mut [ChildProcess], pulses: &Pulses) -> Result<()> {
        wait_until(MOMENT_LIMIT, || {
            all_run(running)?;
            Ok((pulses.newest_end_ms() + IN_STEP_MS >= steady::now_ms()?).then_some(()))
        })
        .context("results are not in step with the input")
    }

    fn report(&self, outcomes: &[Outcome], stored: &Stored, devices: u64) -> Result<Value> {
        let links: Vec<f64> = outcomes.iter().map(|outcome| outcome.link_s).collect();
        let alerts: Vec<f64> = outcomes.iter().map(|outcome| outcome.alert_s).collect();
        let (link, alert) = (median_and_max(&links)?, median_and_max(&alerts)?);
        say(&format!(
            "{}: link after {:.2} s, at most {:.2} s; first new alert after {:.2} s, at most {:.2} s ({} kills)",
            self.name,
            link.0,
            link.1,
            alert.0,
            alert.1,
            outcomes.len()
        ));
        Ok(json!({
            "processes": self.chains.slots,
            "devices": devices,
            "state_bytes": stored.state_bytes,
            "all_slots_have_a_link_s": { "median": link.0, "max": link.1, "runs": links },
            "first_new_alert_s": { "median": alert.0, "max": alert.1, "runs": alerts },
        }))
    }
}

fn all_run(running: &mut [ChildProcess]) -> Result<()> {
    for process in running {
        let ended = process.try_wait()?;
        ensure!(ended.is_none(), "a process ended by itself with {ended:?}:\n{}", process.log_tail());
    }
    Ok(())
}

fn resident_bytes(running: &[ChildProcess]) -> Result<u64> {
    running.iter().map(|process| Ok(holdings::of_process(process.pid())?.rss_bytes)).sum()
}

fn median_and_max(values: &[f64]) -> Result<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied();
    median.zip(sorted.last().copied()).context("nothing was measured")
}

fn rest(time: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < time {
        thread::park_timeout(time.saturating_sub(begun.elapsed()));
    }
}
