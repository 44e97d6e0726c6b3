//! The job that is disturbed: four files of visits with late and broken lines, or a topic with the same in four partitions, a rule of
//! each kind, an alert topic.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::ledger::Difference;
use crate::child_process::ChildProcess;
use crate::e2e::job::{JobFolder, VISITS};
use crate::kafka_broker::TestBroker;
use crate::s3_server::S3Server;
use crate::scratch::Scratch;

const RUN_LIMIT: Duration = Duration::from_secs(240);
const POLL_LIMIT: Duration = Duration::from_secs(20);
/// The topic of the alerts.
pub(super) const ALERTS: &str = "faults-alerts";

pub(super) const FILES: u32 = 4;
pub(super) const LINES: u32 = 12_000;
/// Of so many lines one cannot be read, and one comes two hours late.
const BROKEN_EVERY: u32 = 997;
const LATE_EVERY: u32 = 53;

/// Name, header and query of the rules: a window, one that late events correct, an alert, the same told before its link, rows in
/// order, sessions.
const RULES: [(&str, &str, &str); 6] = [
    (
        "in_time",
        "kind = \"table\"",
        "SELECT shop, window_start, window_end, count(*) AS visits, sum(amount) AS total \
         FROM TUMBLE(visits, at, INTERVAL '10 minutes') GROUP BY shop, window_start, window_end",
    ),
    (
        "corrected",
        "kind = \"table\"\nlate = \"update\"",
        "SELECT shop, window_start, window_end, count(*) AS visits, sum(amount) AS total \
         FROM TUMBLE(visits, at, INTERVAL '1 hour') GROUP BY shop, window_start, window_end",
    ),
    (
        "even_hours",
        "kind = \"alert\"\nentity = \"shop\"",
        "SELECT shop, window_start, window_end, count(*) AS measured, date_part('hour', window_start) % 2 = 0 AS firing \
         FROM TUMBLE(visits, at, INTERVAL '10 minutes') GROUP BY shop, window_start, window_end",
    ),
    (
        EARLY,
        "kind = \"alert\"\nentity = \"shop\"\ndelivery = \"low_latency\"",
        "SELECT shop, window_start, window_end, count(*) AS measured, date_part('hour', window_start) % 2 = 0 AS firing \
         FROM TUMBLE(visits, at, INTERVAL '10 minutes') GROUP BY shop, window_start, window_end",
    ),
    (
        "steps",
        "kind = \"table\"",
        "SELECT shop, at, step FROM (SELECT shop, at, amount - lag(amount) OVER (PARTITION BY shop ORDER BY at) AS step \
         FROM visits) WHERE step > 9.2",
    ),
    (
        "stays",
        "kind = \"table\"",
        "SELECT shop, window_start, window_end, count(*) AS visits \
         FROM SESSION(visits, at, INTERVAL '3 minutes') GROUP BY shop, window_start, window_end",
    ),
];

/// The rule whose alerts may come more than once, and then say the same.
const EARLY: &str = "even_hours_at_once";

/// Each part of the results: its name, the columns of a line, and where they come from.
const RESULTS: [(&str, &[&str], &str); 7] = [
    (
        "visits",
        &[
            "shop",
            "count(*)",
            "count(DISTINCT _offset)",
            "sum(_offset)",
            "sum(_offset * _offset)",
            "sum(_lateness_ms)",
            "sum(amount)",
        ],
        "visits GROUP BY shop",
    ),
    ("dead_letters", &["reason", "record_offset"], "dead_letters"),
    ("in_time", &["shop", "window_start", "visits", "total"], "in_time"),
    ("corrected", &["shop", "window_start", "visits", "total"], "corrected_current"),
    ("steps", &["shop", "at", "step"], "steps"),
    ("stays", &["shop", "window_start", "window_end", "visits"], "stays"),
    ("alerts", &["rule_id", "entity_id", "status", "revision", "measured"], "alerts"),
];

/// Where the archive of a job lies.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    Folder,
    S3(&'a S3Server),
}

/// What a job is given.
#[derive(Debug, Clone)]
pub(super) struct Setup<'a> {
    pub(super) place: Place<'a>,
    /// Where it finds its broker.
    pub(super) bootstrap: String,
    /// The topic that holds the visits; the files otherwise.
    pub(super) topic: Option<&'a str>,
    /// Further lines of the configuration, of the stream and of Kafka's client.
    pub(super) stream: &'a str,
    pub(super) properties: &'a str,
    /// And of how it is run.
    pub(super) run: &'a str,
    /// How long its sources rest after what they bring.
    pub(super) pace_ms: u32,
}

impl<'a> Setup<'a> {
    /// The files, the shared broker, and nothing else.
    pub(super) fn at(place: Place<'a>) -> Self {
        let bootstrap = TestBroker::shared().bootstrap();
        Self { place, bootstrap, topic: None, stream: "", properties: "", run: "", pace_ms: 25 }
    }
}

/// One job in a folder of its own.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) folder: JobFolder,
    job: String,
    pace_ms: u32,
}

/// The files, made once.
fn input() -> &'static Scratch {
    static INPUT: OnceLock<Scratch> = OnceLock::new();
    INPUT.get_or_init(|| {
        let scratch = Scratch::new("faults-input").expect("a folder");
        for file in 0..FILES {
            let text: String = (0..LINES).map(|line| text_of(file, line)).collect();
            fs::write(scratch.join(&format!("visits-{file}.ndjson")), text).expect("the file is written");
        }
        scratch
    })
}

/// A visit a second; each shop has five minutes and then comes again when all others of its file had theirs.
pub(super) fn text_of(file: u32, line: u32) -> String {
    let shop = format!("s{file}{}", line / 300 % 10);
    let is_late = line.is_multiple_of(LATE_EVERY) && line > 7_500;
    let second = if is_late { line - 7_200 } else { line };
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let cents = (line * line % 1_009 + line * 13) % 1_000;
    let end = if is_broken(line) { "" } else { "}" };
    format!(
        "{{\"shop\":\"{shop}\",\"at\":\"2026-03-02T{hour:02}:{minute:02}:{second:02}Z\",\"amount\":\"{}.{:02}\"{end}\n",
        cents / 100,
        cents % 100
    )
}

pub(super) fn is_broken(line: u32) -> bool {
    line % BROKEN_EVERY == BROKEN_EVERY - 1
}

/// The alerts of all jobs of a broker go to one topic; that of the shared broker is made with the first job.
pub(super) fn make_alert_topic() {
    static TOPIC: OnceLock<()> = OnceLock::new();
    TOPIC.get_or_init(|| TestBroker::shared().create_topic(ALERTS, 1, &[]).expect("the topic is made"));
}

impl Subject {
    pub(super) fn new(job: &str, place: Place<'_>) -> Result<Self> {
        Self::with(job, &Setup::at(place))
    }

    /// As [`new`](Self::new), for one of several runs that are tried: each four read more slowly than those before. A machine that is slow
    /// or busy makes fewer links in the same time.
    pub(super) fn for_try(job: &str, place: Place<'_>, number: u32) -> Result<Self> {
        let setup = Setup::at(place);
        Self::with(job, &Setup { pace_ms: setup.pace_ms * (1 + (number - 1) / 4), ..setup })
    }

    /// A job that a test has set up itself.
    pub(super) fn of(folder: JobFolder, job: &str) -> Self {
        Self { folder, job: job.to_owned(), pace_ms: 0 }
    }

    pub(super) fn with(job: &str, setup: &Setup<'_>) -> Result<Self> {
        make_alert_topic();
        let folder = JobFolder::new(job)?;
        folder.write("visits.avsc", VISITS)?;
        for (name, header, sql) in RULES {
            // Several slots tell only single events early.
            let header = if setup.run.contains("slots") {
                header.replace("low_latency", "exactly_once")
            } else {
                header.to_owned()
            };
            let text = format!("/*---\nid = \"{name}\"\n{header}\ndelay = \"1 minute\"\n---*/\n{sql}\n");
            folder.write(&format!("sql/{name}.sql"), &text)?;
        }
        let Setup { place, bootstrap, topic, stream, properties, run, pace_ms } = setup;
        let archive = match place {
            Place::Folder => "url = \"archive\"".to_owned(),
            Place::S3(server) => server.archive_settings(job),
        };
        let input = match topic {
            // A partition whose next records are slow in coming is not to be taken for silent.
            Some(topic) => format!("topic = \"{topic}\"\nidle_timeout = \"1 hour\""),
            None => format!("files = \"{}/*.ndjson\"", input().path().display()),
        };
        folder.write(
            "wattline.toml",
            &format!(
                "job = \"{job}\"\n[kafka]\nbootstrap_servers = \"{bootstrap}\"\n[kafka.properties]\n{properties}\n\
                 [alerts]\ntopic = \"{ALERTS}\"\n\
                 [run]\ntick = \"10 ms\"\ncheckpoint = \"100 ms\"\nworkers = 2\nfile_age = \"200 ms\"\ncorrection = \"200 ms\"\n{run}\n\
                 [streams.visits]\nschema = \"visits.avsc\"\n{input}\n{stream}\n[rules]\npaths = [\"sql\"]\n\
                 [archive]\n{archive}\n"
            ),
        )?;
        Ok(Self { folder, job: job.to_owned(), pace_ms: *pace_ms })
    }

    /// Starts the job, with further arguments.
    pub(super) fn start(&self, args: &[&str]) -> Result<ChildProcess> {
        let pace = self.pace_ms.to_string();
        let all: Vec<&str> = ["run", "--until-end", "--pace", &pace].iter().chain(args).copied().collect();
        self.folder.start(&all)
    }

    /// Runs the job to its good end, and gives the moments to which it came.
    pub(super) fn moments(&self) -> Result<Vec<String>> {
        let mut running = self.start(&["--moments", "moments"])?;
        let status = running.wait(RUN_LIMIT)?;
        ensure!(status.success(), "the job ended with {status}:\n{}", running.log_tail());
        let moments = fs::read_to_string(self.folder.path().join("moments"))?;
        Ok(moments.lines().map(str::to_owned).collect())
    }

    /// Runs the job to its good end; gives how long it took until it committed something, where that can be seen.
    pub(super) fn finish(&self) -> Result<Option<Duration>> {
        self.finish_beside(self.start(&[])?, &mut || Ok(()))
    }

    /// Goes on with a job that was started until its good end, and does something beside it.
    pub(super) fn finish_beside(
        &self,
        mut running: ChildProcess,
        beside: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Option<Duration>> {
        let (before, started) = (self.folder.manifests(), Instant::now());
        let mut recovery = None;
        let status = loop {
            if recovery.is_none() && self.folder.manifests() > before {
                recovery = Some(started.elapsed());
            }
            if let Some(status) = running.try_wait()? {
                break status;
            }
            beside()?;
            ensure!(started.elapsed() < RUN_LIMIT, "`{}` does not end:\n{}", self.job, running.log_tail());
            std::thread::park_timeout(Duration::from_millis(5));
        };
        ensure!(status.success(), "`{}` ended with {status}:\n{}", self.job, running.log_tail());
        Ok(recovery)
    }

    /// Everything that the job has in its tables, a line a row, in order.
    pub(super) fn lines(&self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for row in self.folder.query(&results_sql())? {
            lines.push(row["line"].as_str().context("a line is a text")?.to_owned());
        }
        lines.sort_unstable();
        Ok(lines)
    }
}

fn results_sql() -> String {
    let mut sql = String::new();
    for (name, columns, from) in RESULTS {
        let cells: Vec<String> = columns.iter().map(|c| format!("coalesce(CAST({c} AS VARCHAR), '-')")).collect();
        let union = if sql.is_empty() { "" } else { " UNION ALL " };
        let cells = cells.join(" || ' ' || ");
        write!(sql, "{union}SELECT '{name} ' || {cells} AS line FROM {from}").expect("a text takes all");
    }
    sql
}

/// The results of a run that nobody disturbed, and they are what the input holds.
#[derive(Debug)]
pub(super) struct Undisturbed {
    pub(super) lines: Vec<String>,
    pub(super) moments: Vec<String>,
}

impl Undisturbed {
    pub(super) fn get() -> Result<&'static Self> {
        static RUN: OnceLock<Undisturbed> = OnceLock::new();
        if let Some(run) = RUN.get() {
            return Ok(run);
        }
        let made = Self::make()?;
        Ok(RUN.get_or_init(|| made))
    }

    fn make() -> Result<Self> {
        let subject = Subject::new(
            &format!("faults-none-{}", UNDISTURBED.fetch_add(1, std::sync::atomic::Ordering::Relaxed)),
            Place::Folder,
        )?;
        let moments = subject.moments()?;
        let lines = subject.lines()?;
        holds_what_is_in_the_input(&subject, &lines)?;
        alerts_are_out_once(&[&subject])?;
        Ok(Self { lines, moments })
    }
}

static UNDISTURBED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

/// Every line of the files is a row or a dead letter; the rules are what plain queries over the rows give.
fn holds_what_is_in_the_input(subject: &Subject, lines: &[String]) -> Result<()> {
    let broken = (0..LINES).filter(|line| is_broken(*line)).count() as u64 * u64::from(FILES);
    let of = |name: &str| lines.iter().filter(|line| line.starts_with(name)).count();
    ensure!(of("dead_letters ") as u64 == broken, "{} dead letters, not {broken}", of("dead_letters "));
    let rows = subject.folder.count("SELECT count(*) AS n FROM visits")?;
    ensure!(rows == u64::from(FILES * LINES) - broken, "{rows} rows");
    let late = subject.folder.count("SELECT count(*) AS n FROM visits WHERE _lateness_ms > 60000")?;
    ensure!(late > 200, "only {late} late events");
    for (name, _, sql) in RULES.iter().filter(|(_, header, _)| !header.contains("alert")) {
        let is_corrected = *name == "corrected";
        let table = if is_corrected { "corrected_current".to_owned() } else { (*name).to_owned() };
        let events = if is_corrected { "visits" } else { "(SELECT * FROM visits WHERE _lateness_ms <= 60000)" };
        let sql =
            sql.replacen("FROM visits", &format!("FROM {events}"), 1).replacen("(visits,", &format!("({events},"), 1);
        let columns = RESULTS.iter().find(|(of, ..)| of == name).map(|(_, columns, _)| columns.join(", "));
        let columns = columns.context("the rule has results")?;
        let differing = subject.folder.count(&format!(
            "SELECT count(*) AS n FROM ((SELECT {columns} FROM {table} EXCEPT ALL SELECT {columns} FROM ({sql})) \
             UNION ALL (SELECT {columns} FROM ({sql}) EXCEPT ALL SELECT {columns} FROM {table}))"
        ))?;
        ensure!(differing == 0, "{differing} rows of `{name}` differ from the query over all events");
        ensure!(of(&format!("{name} ")) > 10, "`{name}` has next to no rows");
    }
    ensure!(of("alerts ") > 20, "{} alerts", of("alerts "));
    Ok(())
}

/// Compares what a disturbed job has in its tables with what it should have.
pub(super) fn difference(subject: &Subject) -> Result<Difference> {
    Ok(Difference::between(&Undisturbed::get()?.lines, &subject.lines()?))
}

/// Who reads the alert topic committed finds each alert of these jobs once, those that are told early perhaps more often and then the
/// same, and those that are in their tables.
pub(super) fn alerts_are_out_once(subjects: &[&Subject]) -> Result<()> {
    alerts_are_out_once_at(TestBroker::shared(), subjects)
}

/// The same of another broker.
pub(super) fn alerts_are_out_once_at(broker: &TestBroker, subjects: &[&Subject]) -> Result<()> {
    let mut out = published(broker)?;
    for subject in subjects {
        let alerts = out.remove(&format!("/wattline/{}", subject.job)).unwrap_or_default();
        let mut once: BTreeMap<&String, &Published> = BTreeMap::new();
        for alert in &alerts {
            if let Some(before) = once.insert(&alert.id, alert) {
                let again = &alert.id;
                ensure!(alert.rule == EARLY, "`{}`: `{again}` came twice", subject.job);
                ensure!(alert == before, "`{}`: `{again}` says {alert:?} and had said {before:?}", subject.job);
            }
        }
        let rows = subject.folder.query("SELECT alert_id FROM alerts")?;
        let kept: BTreeSet<String> = rows.iter().filter_map(|row| Some(row["alert_id"].as_str()?.to_owned())).collect();
        ensure!(
            !kept.is_empty() && kept.iter().eq(once.into_keys()),
            "`{}`: alert topic and alerts table differ",
            subject.job
        );
    }
    Ok(())
}

/// An alert as it was read.
#[derive(Debug, PartialEq, Eq)]
struct Published {
    id: String,
    rule: String,
    payload: String,
}

/// All committed alerts by source.
fn published(broker: &TestBroker) -> Result<BTreeMap<String, Vec<Published>>> {
    let consumer: BaseConsumer = broker
        .client_config()
        .set("group.id", "faults-reader")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .create()?;
    let mut partitions = TopicPartitionList::new();
    partitions.add_partition_offset(ALERTS, 0, Offset::Beginning)?;
    consumer.assign(&partitions)?;
    let mut alerts: BTreeMap<String, Vec<Published>> = BTreeMap::new();
    loop {
        match consumer.poll(POLL_LIMIT) {
            None => bail!("no answer from `{ALERTS}` for {} s", POLL_LIMIT.as_secs()),
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(alerts),
            Some(message) => {
                let message = message?;
                let headers = message.headers().context("an alert has headers")?;
                let header = |name: &str| {
                    let found = headers.iter().find(|header| header.key == name).and_then(|header| header.value);
                    found.map(|value| String::from_utf8_lossy(value).into_owned()).context("a header of an alert")
                };
                let payload = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
                let value: serde_json::Value = serde_json::from_str(&payload).context("an alert is no JSON")?;
                let rule = value["rule_id"].as_str().unwrap_or_default().to_owned();
                alerts.entry(header("ce_source")?).or_default().push(Published { id: header("ce_id")?, rule, payload });
            }
        }
    }
}
