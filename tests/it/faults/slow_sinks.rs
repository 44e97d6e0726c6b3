//! What a job brings out is not taken for longer than the group lets a member be silent, while far more comes in than it may hold: it says so,
//! holds the source back, keeps its place in the group, and goes on by itself.

use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::feed::Feed;
use super::ledger::{Difference, Ledger};
use super::rounds;
use super::subject::{ALERTS, Subject, alerts_are_out_once, make_alert_topic};
use crate::child_process::{ChildProcess, wait_until};
use crate::e2e::job::JobFolder;
use crate::kafka_broker::TestBroker;
use crate::kafka_proxy::{KafkaProxy, PRODUCE};
use crate::s3_server::S3Server;

const MOMENT_LIMIT: Duration = Duration::from_secs(60);
const RUN_LIMIT: Duration = Duration::from_secs(180);
/// Longer than `max.poll.interval.ms` below.
const OUTAGE: Duration = Duration::from_secs(9);
const TOPIC: &str = "slow-sinks";
const PARTITIONS: u32 = 4;
const SHOPS: u32 = 10;
/// Of each partition; all of them together would be some 180 MB in memory.
const RECORDS: u32 = 75_000;
const NOTE_BYTES: usize = 600;
/// What the process may hold while nothing is taken: the program itself, raw rows, queues of the workers, what the client has fetched.
/// Were it to hold all of the topic, it would be above 540 MB.
const PEAK_MAX_KB: u64 = 460_000;

const SCHEMA: &str = r#"{"type":"record","name":"visits","event_time":"at","key":["shop"],"fields":[
    {"name":"shop","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"note","type":"string"}]}"#;
const RULE: &str = "/*---\nid = \"visited\"\nkind = \"alert\"\nentity = \"shop\"\ndelay = \"1 minute\"\n---*/
SELECT shop, window_start, window_end, count(*) AS measured
FROM TUMBLE(visits, at, INTERVAL '10 minutes') GROUP BY shop, window_start, window_end\n";
const LINES: &str = "SELECT 'rows ' || CAST(_partition AS VARCHAR) || ' ' || CAST(count(*) AS VARCHAR) || ' ' ||
    CAST(count(DISTINCT _offset) AS VARCHAR) || ' ' || CAST(sum(_offset) AS VARCHAR) AS line FROM visits GROUP BY _partition
    UNION ALL SELECT 'alerts ' || entity_id || ' ' || CAST(count(*) AS VARCHAR) || ' ' ||
    CAST(CAST(sum(measured) AS BIGINT) AS VARCHAR) AS line FROM alerts GROUP BY entity_id";

/// The topic that the jobs read, made once.
fn topic() -> &'static str {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| produce().expect("the records are produced"));
    TOPIC
}

/// Four records a second in each partition, of ten shops in turn.
fn produce() -> Result<()> {
    let feed = Feed::to(TestBroker::shared(), TOPIC, PARTITIONS)?;
    let note = "n".repeat(NOTE_BYTES);
    for record in 0..RECORDS {
        let at_us = 1_772_409_600_000_000 + i64::from(record) * 250_000;
        for partition in 0..PARTITIONS {
            let shop = format!("s{partition}{}", record % SHOPS);
            let payload = format!("{{\"shop\":\"{shop}\",\"at\":{at_us},\"note\":\"{note}\"}}");
            feed.send(partition, Some(payload.as_bytes()), None)?;
        }
    }
    feed.flush()
}

fn expected() -> Vec<String> {
    let offsets = u64::from(RECORDS) * u64::from(RECORDS - 1) / 2;
    let windows = (RECORDS / 4).div_ceil(600);
    let rows = (0..PARTITIONS).map(|partition| format!("rows {partition} {RECORDS} {RECORDS} {offsets}"));
    let alerts = (0..PARTITIONS).flat_map(|partition| {
        (0..SHOPS).map(move |shop| format!("alerts s{partition}{shop} {windows} {}", RECORDS / SHOPS))
    });
    let mut lines: Vec<String> = rows.chain(alerts).collect();
    lines.sort_unstable();
    lines
}

fn job_over(job: &str, bootstrap: &str, archive: &str) -> Result<JobFolder> {
    make_alert_topic();
    let (folder, topic) = (JobFolder::new(job)?, topic());
    folder.write("visits.avsc", SCHEMA)?;
    folder.write("sql/visited.sql", RULE)?;
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"{job}\"\n[kafka]\nbootstrap_servers = \"{bootstrap}\"\n[kafka.properties]\n\
             \"session.timeout.ms\" = 6000\n\"max.poll.interval.ms\" = 6000\n\"queued.max.messages.kbytes\" = 4096\n\
             [alerts]\ntopic = \"{ALERTS}\"\n\
             [run]\ntick = \"100 ms\"\ncheckpoint = \"1 second\"\nworkers = 2\nmemory = \"128 MB\"\nscratch = \".\"\n\
             [streams.visits]\nschema = \"visits.avsc\"\ntopic = \"{topic}\"\nidle_timeout = \"1 hour\"\n\
             [rules]\npaths = [\"sql\"]\n[archive]\n{archive}\n"
        ),
    )?;
    Ok(folder)
}

/// A figure of `/proc/<pid>/status`, in kB.
fn memory_kb(process: &ChildProcess, name: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let figure = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    figure.with_context(|| format!("no `{name}` in the status of the process"))
}

/// Links that are put, of a job whose archive may be anywhere.
fn links(folder: &JobFolder) -> usize {
    let moments = fs::read_to_string(folder.path().join("moments")).unwrap_or_default();
    moments.lines().filter(|moment| moment.starts_with("manifest-") && moment.contains(".after")).count()
}

/// Runs a job, begins an outage after its first link, and ends it when the job has said that it waits and the time is over; gives how long it
/// took from there to its next link.
fn outlast(folder: &JobFolder, set_outage: impl Fn(bool) -> Result<()>, says: &str) -> Result<Duration> {
    let mut running = folder.start(&["run", "--until-end", "--moments", "moments"])?;
    let until = |what: &str, running: &mut ChildProcess, ready: &dyn Fn() -> bool| {
        wait_until(MOMENT_LIMIT, || {
            ensure!(running.try_wait()?.is_none(), "the job ended:\n{}", running.log_tail());
            Ok(ready().then_some(()))
        })
        .with_context(|| format!("not seen: {what}; the job said\n{}", folder.log()))
    };
    until("a link", &mut running, &|| links(folder) > 0)?;
    set_outage(true)?;
    let since = Instant::now();
    until(says, &mut running, &|| folder.log().contains(says))?;
    until("the end of the outage", &mut running, &|| since.elapsed() >= OUTAGE)?;
    let peak_kb = memory_kb(&running, "VmHWM")?;
    ensure!(peak_kb < PEAK_MAX_KB, "the process has held {peak_kb} kB while nothing was taken");
    let (before, repaired) = (links(folder), Instant::now());
    set_outage(false)?;
    until("another link", &mut running, &|| links(folder) > before)?;
    let recovery = repaired.elapsed();
    let status = running.wait(RUN_LIMIT)?;
    ensure!(status.success(), "the job ended with {status}:\n{}", running.log_tail());
    let said = folder.log();
    for lost in ["took lanes away", "maximum poll interval"] {
        ensure!(!said.contains(lost), "it lost its place in the group:\n{said}");
    }
    Ok(recovery)
}

/// Compares what a job has brought out with what it must.
fn note(folder: JobFolder, job: &str, recovery: Duration, ledger: &Ledger) -> Result<()> {
    let mut found = Vec::new();
    for row in folder.query(LINES)? {
        found.push(row["line"].as_str().context("a line is a text")?.to_owned());
    }
    found.sort_unstable();
    ledger.note(job, 1, &Difference::between(&expected(), &found), &[recovery]);
    alerts_are_out_once(&[&Subject::of(folder, job)])
}

#[test]
fn an_alert_topic_that_takes_nothing_for_long_is_waited_for() -> Result<()> {
    let fault =
        "an alert topic that takes nothing for longer than `max.poll.interval.ms`, and more to read than memory holds";
    let ledger = Ledger::new(15, fault);
    for round in 0..rounds(1, 50)? {
        let job = format!("slow-alerts-{round}");
        let proxy = KafkaProxy::start(TestBroker::shared(), PRODUCE, |_| None)?;
        let folder = job_over(&job, &proxy.bootstrap(), "url = \"archive\"")?;
        let set_outage = |is_out: bool| {
            proxy.hold(is_out);
            Ok(())
        };
        let recovery = outlast(&folder, set_outage, "publishing alerts failed, trying again")?;
        note(folder, &job, recovery, &ledger)?;
    }
    ledger.close()
}

#[test]
fn a_store_that_takes_nothing_for_long_does_not_cost_the_lanes() -> Result<()> {
    let fault =
        "an S3 store that takes nothing for longer than `max.poll.interval.ms`, and more to read than memory holds";
    let ledger = Ledger::new(16, fault);
    for round in 0..rounds(1, 50)? {
        let job = format!("slow-store-{round}");
        let server = S3Server::start()?;
        let folder = job_over(&job, &TestBroker::shared().bootstrap(), &server.archive_settings(&job))?;
        let recovery = outlast(&folder, |is_out| server.set_outage(is_out), "failed, trying again")?;
        note(folder, &job, recovery, &ledger)?;
    }
    ledger.close()
}
