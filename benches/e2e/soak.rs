//! An hour of ordinary work: what the program holds must be the same in the end as after a quarter of the time.
//!
//! A job with windows, OVER, conditions, occurrences and late corrections reads what a steady producer sends to a real broker, all in
//! the time of the machine. Every five seconds the kernel is asked what its processes hold, and the archive how many objects lie
//! below the folder of the job. The first quarter is for warming up; the median of the last quarter is compared with that of the
//! second. In the end the job is stopped in order, reads what is left, and every record must be there once.
//!
//! ```text
//! producer ─▶ Apache Kafka, 4 partitions ─▶ wattline run (one process, or one for each slot) ─▶ archive, alerts
//!                                                └── /proc, files below archive/_wattline ── every 5 s
//! ```

mod accounts;
#[path = "../../tests/it/child_process.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the tests, which use more of it")]
mod child_process;
mod flat;
mod hand_over;
mod holdings;
#[path = "../../tests/it/kafka_broker.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod kafka_broker;
mod machine;
#[allow(dead_code, reason = "shared with other benches, which use more of it")]
mod measured_child;
mod results;
#[path = "../../tests/it/scratch.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod scratch;
mod soak_job;
mod steady;
#[path = "../../tests/it/tree.rs"]
#[allow(dead_code, reason = "shared with the tests, which use more of it")]
mod tree;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use crate::accounts::Job;
use crate::child_process::ChildProcess;
use crate::flat::Sample;
use crate::kafka_broker::TestBroker;
use crate::results::say;
use crate::scratch::Scratch;
use crate::soak_job::Setup;
use crate::steady::Sent;

const USAGE: &str =
    "options: --minutes N (4 at least), --rate N (events a second), --slots N, --memory SIZE, --out FILE";
const TOPIC: &str = "soak-samples";
const ALERTS: &str = "soak-alerts";
const PARTITIONS: i32 = 4;
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// Samples between two counts of the live data files, each of which is a process of its own.
const FILES_EVERY: u32 = 12;
const PAUSE: Duration = Duration::from_millis(200);
const STOP_LIMIT: Duration = Duration::from_secs(60);

struct Settings {
    minutes: u64,
    rate: u64,
    slots: usize,
    memory: String,
    out: Option<String>,
}

fn main() -> Result<()> {
    let settings = settings(std::env::args().skip(1))?;
    let program = tree::wattline()?;
    let broker = TestBroker::start()?;
    broker.create_topic(TOPIC, PARTITIONS, &[])?;
    broker.create_topic(ALERTS, PARTITIONS, &[])?;
    let folder = Scratch::new("soak")?;
    let run_s = settings.minutes * 60;
    let (bootstrap, memory) = (broker.bootstrap(), settings.memory.as_str());
    let setup = Setup { bootstrap: &bootstrap, topic: TOPIC, alerts: ALERTS, slots: settings.slots, memory, run_s };
    soak_job::write(folder.path(), &setup)?;
    let job = Job {
        program: &program,
        folder: folder.path(),
        broker: &broker,
        topic: TOPIC,
        partitions: PARTITIONS,
        table: soak_job::TABLE,
    };
    job.answer(&["check"])?;
    let mut running = (0..settings.slots).map(|number| start(&job, number)).collect::<Result<Vec<_>>>()?;
    let (samples, sent) = feed_and_watch(&job, &settings, &mut running)?;
    let stopped = Instant::now();
    running.iter().try_for_each(|process| process.signal("TERM"))?;
    for process in &mut running {
        let status = process.wait(STOP_LIMIT)?;
        ensure!(status.success(), "a process ended with {status}:\n{}", process.log_tail());
    }
    let stop_seconds = stopped.elapsed().as_secs_f64();
    measured_child::run(&program, &["run", "--until-end"], folder.path())?;
    job.every_record_is_there_once(&sent)?;
    let alerts = job.alerts_are_out_once(ALERTS)?;
    job.answer(&["archive", "verify"])?;
    say(&format!(
        "{} records, {} of them late and {} broken: each is there once; {alerts} alerts, each out once; stopped in {stop_seconds:.1} s",
        sent.records, sent.late, sent.broken
    ));
    judge(&settings, &samples, &sent, alerts, stop_seconds)
}

fn settings(mut args: impl Iterator<Item = String>) -> Result<Settings> {
    let mut settings = Settings { minutes: 60, rate: 2_000, slots: 1, memory: "512 MB".to_owned(), out: None };
    while let Some(name) = args.next().filter(|name| name != "--bench") {
        let value = args.next().with_context(|| format!("`{name}` needs a value; {USAGE}"))?;
        let number = || value.parse::<u64>().with_context(|| format!("`{value}` is no number; {USAGE}"));
        match name.as_str() {
            "--minutes" => settings.minutes = number()?.max(4),
            "--rate" => settings.rate = number()?.max(1),
            "--slots" => settings.slots = usize::try_from(number()?.max(1))?,
            "--memory" => settings.memory = value,
            "--out" => settings.out = Some(value),
            _ => bail!("`{name}` is no option; {USAGE}"),
        }
    }
    Ok(settings)
}

fn start(job: &Job<'_>, number: usize) -> Result<ChildProcess> {
    ChildProcess::start(job.program, &["run"], job.folder, &job.folder.join(format!("process-{number}.log")))
}

/// Produces for as long as the run lasts, and samples what the processes hold.
fn feed_and_watch(job: &Job<'_>, settings: &Settings, running: &mut [ChildProcess]) -> Result<(Vec<Sample>, Sent)> {
    let stop = AtomicBool::new(false);
    let (run_s, partitions) = (settings.minutes * 60, u64::try_from(PARTITIONS)?);
    thread::scope(|scope| {
        let producing = scope.spawn(|| {
            steady::produce(job.broker, TOPIC, settings.rate, &stop, |number, now_ms, text| {
                soak_job::sample(number, now_ms, run_s, partitions, text)
            })
        });
        let samples = watch(job, run_s, running, || !producing.is_finished());
        stop.store(true, Ordering::Relaxed);
        let sent = producing.join().map_err(|_| anyhow!("the producer panicked"))?;
        Ok((samples?, sent?))
    })
}

fn watch(job: &Job<'_>, run_s: u64, running: &mut [ChildProcess], is_fed: impl Fn() -> bool) -> Result<Vec<Sample>> {
    let started = Instant::now();
    let mut samples = Vec::new();
    let mut live_files = None;
    for number in 1_u32.. {
        let due = SAMPLE_EVERY * number;
        if due.as_secs() > run_s {
            break;
        }
        while started.elapsed() < due && is_fed() {
            thread::park_timeout(PAUSE);
        }
        ensure!(is_fed(), "the producer has ended");
        for process in &mut *running {
            let ended = process.try_wait()?;
            ensure!(ended.is_none(), "a process ended by itself with {ended:?}:\n{}", process.log_tail());
        }
        if number % FILES_EVERY == 0 {
            live_files = Some(count_live_files(job)?);
        }
        let mut sample = Sample { at_s: started.elapsed().as_secs_f64(), values: values(job.folder, running)? };
        sample.values.extend(live_files.map(|files| ("live data files".to_owned(), files)));
        if number % FILES_EVERY == 0 {
            say(&sample.line());
        }
        samples.push(sample);
    }
    Ok(samples)
}

/// What all processes hold together, and the objects below the folder of the job.
fn values(folder: &Path, running: &[ChildProcess]) -> Result<BTreeMap<String, f64>> {
    let mut values: BTreeMap<String, f64> = BTreeMap::new();
    let mut add = |name: &str, value: f64| *values.entry(name.to_owned()).or_default() += value;
    for process in running {
        let held = holdings::of_process(process.pid())?;
        add(flat::RSS, held.rss_bytes as f64);
        add(flat::DESCRIPTORS, held.descriptors as f64);
        add(flat::THREADS, held.threads as f64);
        add(flat::CPU, held.cpu_seconds);
    }
    for (kind, objects) in holdings::objects_below(&folder.join("archive/_wattline/soak"))? {
        add(flat::OBJECTS, objects.count as f64);
        add(flat::OBJECT_BYTES, objects.bytes as f64);
        add(&format!("objects of {kind}"), objects.count as f64);
    }
    Ok(values)
}

/// Data files that tables name now, of all tables.
fn count_live_files(job: &Job<'_>) -> Result<f64> {
    let tables: Value = serde_json::from_str(&job.answer(&["archive", "list", "--format", "json"])?)?;
    let tables = tables.as_array().context("`archive list` gives no array")?;
    Ok(tables.iter().filter_map(|table| table.get("files")?.as_f64()).sum())
}

/// Prints the table, writes the report, and fails if something grew.
fn judge(settings: &Settings, samples: &[Sample], sent: &Sent, alerts: u64, stop_seconds: f64) -> Result<()> {
    let run_s = (settings.minutes * 60) as f64;
    let verdicts = flat::compare(samples, run_s, settings.slots)?;
    say(&flat::table(&verdicts));
    let found = json!({
        "settings": {
            "minutes": settings.minutes,
            "events_per_s": settings.rate,
            "partitions": PARTITIONS,
            "processes": settings.slots,
            "slots": settings.slots,
            "memory": settings.memory,
        },
        "records": sent.records,
        "late": sent.late,
        "broken": sent.broken,
        "alerts": alerts,
        "stop_seconds": stop_seconds,
        "verdicts": verdicts.iter().map(flat::Verdict::json).collect::<Vec<_>>(),
        "minutes": flat::by_minute(samples)?,
    });
    let what = "an hour of steady work: what the program holds in the second and in the last quarter";
    say(&format!("report: {}", results::write("soak", settings.out.as_deref(), what, found)?));
    let grown: Vec<String> = verdicts.iter().filter(|verdict| !verdict.is_flat()).map(flat::Verdict::line).collect();
    ensure!(grown.is_empty(), "not flat:\n{}", grown.join("\n"));
    say("flat");
    Ok(())
}
