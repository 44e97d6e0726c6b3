//! One scenario: its topic, its job, and what the archive must hold when it is done.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde::Deserialize;
use serde_json::{Value, json};
use wattline_sim::{Disorder, Generator, Meters, reference};

use crate::hand_over::send;
use crate::kafka_broker::TestBroker;
use crate::measured_child::{self, Usage};
use crate::scratch::Scratch;
use crate::thread_times::ThreadTimes;
use crate::tree;

const FOLDER: &str = "benches/speed";
const SEED: u64 = 1;
const SERVE_EVERY: u64 = 4_096;
const FLUSH_LIMIT: Duration = Duration::from_secs(120);
const MIB: f64 = 1_048_576.0;

#[derive(Debug, Deserialize)]
struct Scenarios {
    scenario: Vec<Scenario>,
}

/// As its file describes it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) events: u64,
    pub(crate) meters: u64,
    #[serde(default = "four")]
    pub(crate) partitions: i32,
    #[serde(default)]
    keep: bool,
    #[serde(default = "one")]
    repeat: u64,
    #[serde(default)]
    rules: BTreeMap<String, String>,
    #[serde(default)]
    shipped: Vec<String>,
    #[serde(default = "two_gb")]
    memory: String,
    pub(crate) bar: Option<f64>,
    pub(crate) against: Option<String>,
    pub(crate) times: Option<f64>,
    pub(crate) peak_mb: Option<f64>,
    check: Vec<Check>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Check {
    sql: String,
    is: Expected,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Expected {
    Number(u64),
    Name(String),
}

fn four() -> i32 {
    4
}

fn one() -> u64 {
    1
}

fn two_gb() -> String {
    "2 GB".to_owned()
}

/// What is in a topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Topic {
    pub(crate) events: u64,
    /// Payloads without keys, before compression.
    pub(crate) bytes: u64,
    /// Pairs of a meter and ten minutes.
    pub(crate) groups: u64,
}

/// What one run took.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) events: u64,
    pub(crate) usage: Usage,
    archive_bytes: u64,
    /// Seconds of processor time by what threads are for.
    parts: BTreeMap<&'static str, f64>,
}

impl Measured {
    pub(crate) fn cpu_us_per_event(&self) -> f64 {
        self.usage.cpu_seconds * 1e6 / self.events as f64
    }

    fn events_per_core_s(&self) -> f64 {
        self.events as f64 / self.usage.cpu_seconds
    }

    pub(crate) fn line(&self) -> String {
        format!(
            "{:>9.0} events/s of a core, {:>9.0} events/s, {:.3} CPU us an event, peak {:.0} MiB, {:.1} archive bytes an event",
            self.events_per_core_s(),
            self.events as f64 / self.usage.wall_seconds,
            self.cpu_us_per_event(),
            self.usage.peak_bytes as f64 / MIB,
            self.archive_bytes as f64 / self.events as f64,
        )
    }

    /// Nanoseconds of an event by what threads are for.
    pub(crate) fn parts_line(&self) -> String {
        let part = |(name, seconds): (&&str, &f64)| format!("{name} {:.0}", seconds * 1e9 / self.events as f64);
        self.parts.iter().map(part).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn json(&self) -> Value {
        let parts = self.parts.iter().map(|(part, seconds)| (*part, seconds * 1e9 / self.events as f64));
        json!({
            "cpu_ns_per_event_by_thread": parts.collect::<BTreeMap<_, _>>(),
            "events_per_core_s": self.events_per_core_s(),
            "events_per_s": self.events as f64 / self.usage.wall_seconds,
            "cpu_us_per_event": self.cpu_us_per_event(),
            "peak_bytes": self.usage.peak_bytes,
            "archive_bytes_per_event": self.archive_bytes as f64 / self.events as f64,
        })
    }
}

impl Scenario {
    /// The same with so many events.
    pub(crate) fn over(&self, events: u64) -> Self {
        let mut scenario = self.clone();
        scenario.events = events;
        scenario
    }

    pub(crate) fn topic(&self) -> String {
        format!("readings-{}-of-{}-in-{}", self.events, self.meters, self.partitions)
    }

    fn fleet(&self) -> Meters {
        Meters { meters: self.meters, readings: self.events }
    }

    /// How what was found stands to what is asked for.
    pub(crate) fn verdicts(&self, found: &Measured, times: Option<f64>) -> String {
        let verdict = |is_met: bool| if is_met { "met" } else { "NOT met" };
        let rate = self.bar.map(|bar| {
            format!("; asked for {bar:.0} events/s of a core: {}", verdict(found.events_per_core_s() >= bar))
        });
        let times = times.zip(self.times).zip(self.against.as_ref()).map(|((times, most), other)| {
            format!("; {times:.2} times `{other}`, at most {most} asked for: {}", verdict(times <= most))
        });
        let peak = self.peak_mb.map(|most| {
            let is_met = found.usage.peak_bytes as f64 <= most * MIB;
            format!("; at most {most:.0} MiB asked for: {}", verdict(is_met))
        });
        [rate, times, peak].into_iter().flatten().collect()
    }
}

pub(crate) fn read_scenarios() -> Result<Vec<Scenario>> {
    let path = tree::root()?.join(FOLDER).join("scenarios.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
    let Scenarios { scenario } = toml::from_str(&text).with_context(|| format!("`{}`", path.display()))?;
    Ok(scenario)
}

/// Fills the topic of a scenario: every record is whole and in order.
pub(crate) fn produce(broker: &TestBroker, scenario: &Scenario) -> Result<Topic> {
    let (topic, partitions) = (scenario.topic(), scenario.partitions);
    broker.create_topic(&topic, partitions, &[])?;
    let producer: BaseProducer = broker
        .client_config()
        .set("acks", "all")
        .set("linger.ms", "20")
        .set("compression.type", "lz4")
        .set("queue.buffering.max.messages", "500000")
        .create()?;
    let by_last_digits =
        |key: &[u8]| key.iter().rev().take(3).fold(0, |sum, digit| sum * 7 + i32::from(*digit)) % partitions;
    let lanes = usize::try_from(partitions)?;
    let mut generator = Generator::new(scenario.fleet(), Disorder::none(), SEED, lanes, by_last_digits);
    let (mut events, mut bytes) = (0, 0);
    while let Some(record) = generator.next() {
        bytes += record.payload.len() as u64;
        send(&producer, BaseRecord::to(&topic).partition(record.partition).key(record.key).payload(record.payload))?;
        events += 1;
        if events % SERVE_EVERY == 0 {
            producer.poll(Duration::ZERO);
        }
    }
    producer.flush(FLUSH_LIMIT)?;
    ensure!(producer.in_flight_count() == 0, "{} records were not acknowledged", producer.in_flight_count());
    ensure!(generator.counts().accepted() == events, "a record is broken");
    Ok(Topic { events, bytes, groups: groups(scenario) })
}

/// Each meter has a reading a minute, so it has one in each ten minutes between its first and its last.
fn groups(scenario: &Scenario) -> u64 {
    let Scenario { events, meters, .. } = *scenario;
    let of_meter = |meter: u64| {
        let rounds = (events - meter).div_ceil(meters);
        let first_ms = meter * 60_000 / meters;
        let last_ms = first_ms + (rounds - 1) * 60_000;
        last_ms / 600_000 - first_ms / 600_000 + 1
    };
    (0..meters.min(events)).map(of_meter).sum()
}

/// Runs the job of a scenario from the beginning of its topic, and looks whether it gave what it must.
pub(crate) fn measure(
    program: &Path,
    broker: &TestBroker,
    scenario: &Scenario,
    topic: &Topic,
    run: usize,
) -> Result<Measured> {
    let folder = Scratch::new("speed")?;
    write_job(folder.path(), broker, scenario, run)?;
    let mut times = None;
    let watch = |process| {
        times = Some(ThreadTimes::of(process)?);
        Ok(())
    };
    let usage = measured_child::run_seen(program, &["run", "--until-end"], folder.path(), watch)?;
    let parts = times.map(ThreadTimes::stop).transpose()?.unwrap_or_default();
    for Check { sql, is } in &scenario.check {
        let expected = match is {
            Expected::Number(number) => *number,
            Expected::Name(name) if name == "events" => topic.events,
            Expected::Name(name) if name == "groups" => topic.groups,
            Expected::Name(name) => bail!("`{name}` is nothing that a check can ask for"),
        };
        let found = measured_child::count(program, folder.path(), sql)?;
        ensure!(found == expected, "`{sql}` gave {found} and not {expected}");
    }
    let archive_bytes = data_bytes(&folder.path().join("archive"))?;
    Ok(Measured { events: topic.events, usage, archive_bytes, parts })
}

/// The Parquet files of all tables.
fn data_bytes(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sum += data_bytes(&entry.path())?;
        } else if entry.path().extension().is_some_and(|extension| extension == "parquet") {
            sum += entry.metadata()?.len();
        }
    }
    Ok(sum)
}

fn write_job(folder: &Path, broker: &TestBroker, scenario: &Scenario, run: usize) -> Result<()> {
    let (stream, schema) = match scenario.shipped.is_empty() {
        true => ("readings", "readings.avsc"),
        false => ("meter_readings", "builtin:meter_readings"),
    };
    let mut paths: Vec<String> = scenario.shipped.iter().map(|rule| format!("\"builtin:{rule}\"")).collect();
    fs::create_dir(folder.join("sql"))?;
    for number in 0..scenario.repeat {
        for (id, query) in &scenario.rules {
            let filled = |text: &str| text.replace("{n}", &number.to_string());
            let id = filled(id);
            let text = format!("/*---\nid = \"{id}\"\nkind = \"table\"\n---*/{}\n", filled(query));
            fs::write(folder.join(format!("sql/{id}.sql")), text)?;
        }
    }
    if !scenario.rules.is_empty() {
        paths.push("\"sql\"".to_owned());
    }
    fs::copy(tree::root()?.join(FOLDER).join("readings.avsc"), folder.join("readings.avsc"))?;
    let mut config = format!(
        "job = \"speed{run}\"
[run]
memory = \"{memory}\"
[kafka]
bootstrap_servers = \"{bootstrap}\"
[streams.{stream}]
schema = \"{schema}\"
topic = \"{topic}\"
keep = {keep}
delay = \"5 seconds\"
[rules]
paths = [{paths}]
[archive]
url = \"archive\"
",
        memory = scenario.memory,
        bootstrap = broker.bootstrap(),
        topic = scenario.topic(),
        keep = scenario.keep,
        paths = paths.join(", "),
    );
    if !scenario.shipped.is_empty() {
        fs::write(folder.join("meters.csv"), reference::meters_csv(&scenario.fleet()))?;
        config.push_str("[reference.meters]\npath = \"meters.csv\"\n");
    }
    fs::write(folder.join("wattline.toml"), config).context("cannot write the configuration")
}
