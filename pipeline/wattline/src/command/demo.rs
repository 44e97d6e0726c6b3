//! `wattline demo`: bundled real data through an embedded broker, the same path as production.
//!
//! A feeder produces the sample into the broker no faster than the job reads, since the broker keeps little; the
//! job runs the shipped rules on it, writes the archive and publishes alerts to the broker. When the feeder is
//! done, each lane ends at its last record, every window closes, and the job ends by itself.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use wattline_connect::archive::Archive;
use wattline_connect::embedded::{self, EmbeddedBroker, Feeder};
use wattline_connect::kafka::admin::{KeyedMessage, partition_of_key};
use wattline_core::record::LaneId;
use wattline_runtime::port::{Position, Source, SourceEvent};
use wattline_runtime::progress::Progress;
use wattline_runtime::{RunSummary, alerting};
use wattline_sql::UserFunctions;

use super::init::sample_file;
use crate::cli::DemoArgs;
use crate::job;
use crate::project::{self, Project};
use crate::table_text::{bytes, grouped, table};
use crate::{assets, report};

const PARTITIONS: i32 = 4;
/// The sample, in the order in which it is fed: topic, files, field that is the key.
pub(super) const SAMPLE: [(&str, &[&str], &str); 3] = [
    ("meter-readings", &["readings.ndjson.gz", "readings_scenario.ndjson.gz"], "meter_id"),
    ("device-metrics", &["device_metrics.ndjson.gz"], "device_id"),
    ("business-transactions", &["transactions.ndjson.gz", "bills.ndjson"], "case_id"),
];

pub(super) async fn run(args: DemoArgs) -> Result<ExitCode> {
    let started = Instant::now();
    let broker = EmbeddedBroker::start()?;
    for (topic, _, _) in SAMPLE {
        broker.create_topic(topic, PARTITIONS)?;
    }
    broker.create_topic("alerts", 1)?;
    let project = prepare(&args.folder, &broker.bootstrap_servers())?;
    report::print(
        "starting an embedded Kafka broker and feeding it the bundled sample: real meter readings, device metrics and business transactions\n",
    );
    let progress = Arc::new(Progress::default());
    let feed = Feed::new(Arc::clone(&progress));
    let feeder = broker.feeder(feed.window.clone())?;
    let thread = std::thread::Builder::new().name("wattline-demo-feeder".to_owned()).spawn({
        let feed = feed.clone();
        move || feed_sample(feeder, &feed)
    })?;
    let bound = feed.clone();
    let wrap: job::WrapSource =
        Box::new(move |source| Box::new(FedTopics { source, feed: bound, lanes: BTreeMap::new() }));
    let outcome = super::run::run_wrapped(&project, Arc::clone(&progress), wrap).await;
    feed.window.stop();
    let fed = thread.join().map_err(|_panic| anyhow::anyhow!("the feeder panicked"))?;
    let summary = outcome?;
    let sent = fed?;
    report::print(&told(&args.folder, &project, &progress, &summary, sent, started.elapsed()).await?);
    Ok(ExitCode::SUCCESS)
}

/// Makes the demo's folder: configuration and reference tables, no archive yet.
fn prepare(folder: &Path, bootstrap_servers: &str) -> Result<Project> {
    let config = assets::demo_config();
    let mark = config.lines().next().unwrap_or_default().to_owned();
    let config_path = folder.join("wattline.toml");
    if folder.exists() {
        let ours = std::fs::read_to_string(&config_path).is_ok_and(|text| text.starts_with(&mark));
        let empty = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
        if !ours && !empty {
            bail!("`{}` exists and was not made by the demo: name another folder with --folder", folder.display());
        }
        std::fs::remove_dir_all(folder)
            .with_context(|| format!("the last demo's folder `{}` cannot be removed", folder.display()))?;
    }
    for path in assets::sample_paths().iter().filter(|path| path.starts_with("reference/")) {
        super::init::write(&folder.join(path), &sample_file(path)?)?;
    }
    let config = config.replace("127.0.0.1:9092", bootstrap_servers);
    super::init::write(&config_path, config.as_bytes())?;
    project::load(&config_path, &UserFunctions::default()).map_err(|refused| {
        report::diagnostics(&refused.diagnostics, &refused.texts);
        anyhow::anyhow!("the demo's own project is refused; this is a bug")
    })
}

/// What the feeder and the source of the demo share.
#[derive(Clone)]
struct Feed {
    window: embedded::Progress,
    progress: Arc<Progress>,
    /// Records per lane, once everything was fed.
    ends: Arc<Mutex<Option<BTreeMap<LaneId, i64>>>>,
}

impl Feed {
    fn new(progress: Arc<Progress>) -> Self {
        Self { window: embedded::Progress::new(), progress, ends: Arc::default() }
    }

    fn end_of(&self, lane: &LaneId) -> Option<i64> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.as_ref().map(|ends| ends.get(lane).copied().unwrap_or(0))
    }
}

/// Sends the sample, one line of each topic in turn.
fn feed_sample(mut feeder: Feeder, feed: &Feed) -> Result<u64> {
    let mut inputs = Vec::new();
    for (topic, files, key) in SAMPLE {
        let readers: Vec<Box<dyn Read>> = files.iter().map(|file| open(file)).collect::<Result<_>>()?;
        let chained =
            readers.into_iter().fold(Box::new(std::io::empty()) as Box<dyn Read>, |a, b| Box::new(a.chain(b)));
        inputs.push((topic, key, BufReader::new(chained)));
    }
    let mut ends: BTreeMap<LaneId, i64> = BTreeMap::new();
    let mut line = String::new();
    while !inputs.is_empty() {
        let mut done = Vec::new();
        for (at, (topic, key, reader)) in inputs.iter_mut().enumerate() {
            line.clear();
            if reader.read_line(&mut line).context("reading the bundled sample")? == 0 {
                done.push(at);
                continue;
            }
            let record: serde_json::Value = serde_json::from_str(&line).context("reading the bundled sample")?;
            let key = record[*key].as_str().unwrap_or_default();
            let message =
                KeyedMessage { topic, key: key.as_bytes(), payload: line.trim_end().as_bytes(), timestamp_ms: None };
            if !feeder.send(&message)? {
                return Ok(0);
            }
            *ends.entry(LaneId::new(*topic, partition_of_key(key.as_bytes(), PARTITIONS))).or_default() += 1;
        }
        done.into_iter().rev().for_each(|at| drop(inputs.remove(at)));
    }
    let sent = feeder.finish()?;
    *feed.ends.lock().unwrap_or_else(PoisonError::into_inner) = Some(ends);
    Ok(sent)
}

fn open(file: &str) -> Result<Box<dyn Read>> {
    let data = std::io::Cursor::new(sample_file(file)?);
    Ok(if file.ends_with(".gz") { Box::new(flate2::read::MultiGzDecoder::new(data)) } else { Box::new(data) })
}

/// Topics whose lanes end where the feeder has stopped.
struct FedTopics {
    source: Box<dyn Source>,
    feed: Feed,
    /// Lanes and, once caught up, where; `None` after their end was told.
    lanes: BTreeMap<LaneId, Option<i64>>,
}

impl Source for FedTopics {
    fn poll(&mut self, max_wait: Duration) -> wattline_runtime::Result<Vec<SourceEvent>> {
        let mut events = self.source.poll(max_wait)?;
        for event in &events {
            match event {
                SourceEvent::Assigned(lanes) => self.lanes.extend(lanes.iter().map(|lane| (lane.clone(), Some(-1)))),
                SourceEvent::CaughtUp(lane, next) => {
                    self.lanes.insert(lane.clone(), Some(*next));
                }
                _ => {}
            }
        }
        for (lane, caught_up) in &mut self.lanes {
            self.feed.window.processed(lane, self.feed.progress.processed(lane));
            if let (Some(next), Some(end)) = (*caught_up, self.feed.end_of(lane))
                && next >= end
            {
                *caught_up = None;
                events.push(SourceEvent::Ended(lane.clone(), end));
            }
        }
        Ok(events)
    }

    fn start(&mut self, lane: &LaneId, position: Position, log: Option<&str>) -> wattline_runtime::Result<()> {
        self.source.start(lane, position, log)
    }

    fn set_paused(&mut self, paused: bool) -> wattline_runtime::Result<()> {
        self.source.set_paused(paused)
    }

    fn report_published(&mut self, positions: &[(LaneId, i64)]) {
        self.source.report_published(positions);
    }

    fn lag(&self) -> Option<u64> {
        self.source.lag()
    }
}

/// The summary at the end.
async fn told(
    folder: &Path,
    project: &Project,
    progress: &Progress,
    summary: &RunSummary,
    sent: u64,
    took: Duration,
) -> Result<String> {
    let archive = Archive::open(job::archive_root(&project.config, &project.folder)?);
    let load = |counter: &std::sync::atomic::AtomicU64| grouped(counter.load(Ordering::Relaxed));
    let mut out = format!(
        "\n{} records through {} partitions in {:.1} s: {} events, {} refused, {} late; {} rules; {} alert records\n",
        grouped(sent),
        SAMPLE.len() * PARTITIONS as usize,
        took.as_secs_f64(),
        load(&progress.events),
        load(&progress.refused),
        load(&progress.late),
        project.rules.rules().len(),
        load(&progress.alerts),
    );
    out.push_str("\nAlerts\n");
    out.push_str(&alerts(project, summary));
    if let Some(record) =
        summary.sample_alerts.iter().find(|r| r.rule_id == "pq_voltage_deviation").or(summary.sample_alerts.first())
    {
        out.push_str(&format!(
            "\nOne of them, explained\n  {}\n  alert {} · evidence {}\n",
            alerting::explanation(record),
            record.id(),
            record.evidence
        ));
    }
    out.push_str("\nTables\n");
    let tables = archive.list().await?;
    let rows: Vec<Vec<String>> =
        tables.iter().map(|t| vec![t.name.clone(), grouped(t.rows), grouped(t.files), bytes(t.bytes)]).collect();
    out.push_str(&table(&["table", "rows", "files", "size"], &rows));
    out.push_str(&next_steps(folder));
    Ok(out)
}

fn alerts(project: &Project, summary: &RunSummary) -> String {
    let rows: Vec<Vec<String>> = summary
        .alerts_by_rule
        .iter()
        .map(|(id, by_status)| {
            let count = |status: &str| by_status.get(status).copied().unwrap_or(0);
            let title = project.rules.rule(id).map_or("", |(_, rule)| rule.header.title.as_str());
            vec![
                id.clone(),
                grouped(count("open")),
                grouped(count("update")),
                grouped(count("resolved")),
                title.to_owned(),
            ]
        })
        .collect();
    table(&["rule", "opened", "updated", "resolved", "what it says"], &rows)
}

fn next_steps(folder: &Path) -> String {
    let exe = std::env::current_exe().ok();
    let here = std::env::current_dir().ok();
    let exe = exe.as_deref().map(|exe| here.as_deref().and_then(|here| exe.strip_prefix(here).ok()).unwrap_or(exe));
    let exe = exe.map_or_else(|| "wattline".to_owned(), |exe| exe.display().to_string());
    let (folder, config) = (folder.display(), folder.join("wattline.toml"));
    let config = config.display();
    format!(
        "\nThe Parquet files lie in {folder}/archive, one folder a table. Look at them with what you have:\n\
         \n  {exe} query -c {config} \"SELECT rule_id, status, count(*) FROM alerts GROUP BY 1, 2 ORDER BY 1, 2\"\
         \n  {exe} archive -h   # list, files, verify, vacuum, backup, restore\
         \n  duckdb -c \"SELECT meter_id, max(u_a_v) FROM read_parquet($({exe} archive files meter_readings -c {config} --format json | tr '\"' \"'\")) GROUP BY 1 ORDER BY 2 DESC LIMIT 5\"\
         \n  python3 -c \"import polars; print(polars.scan_delta('{folder}/archive/alerts').select('entity_id', 'explanation').collect())\"\n\
         \nYour own: {exe} init my-project\n"
    )
}
