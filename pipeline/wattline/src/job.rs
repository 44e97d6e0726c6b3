//! From a loaded project to a job that the runtime can run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use wattline_connect::archive::{Archive, MaintainPolicy};
use wattline_connect::backup::{Restoring, unfinished_restore};
use wattline_connect::files::{FileSource, FileSourceConfig};
use wattline_connect::kafka::alerts::{AlertPublisher, AlertPublisherConfig, OnPublishStep};
use wattline_connect::kafka::early_alerts::EarlyPublisher;
use wattline_connect::kafka::exchange::{ExchangeConfig, ExchangeSender, ensure_topic};
use wattline_connect::kafka::source::{KafkaSource, KafkaSourceConfig, Share, SlotMember};
use wattline_connect::store::ObjectRoot;
use wattline_core::exchange::Place;
use wattline_core::lane::TimeGuard;
use wattline_core::record::LaneId;
use wattline_decode::WriterSchemas;
use wattline_runtime::clock::Clock;
use wattline_runtime::port::{AlertSink, Decoder, LaneProgram, References, Reloaded, Source};
use wattline_runtime::progress::Progress;
use wattline_runtime::table::TableSpec;
use wattline_runtime::threads::OsThreads;
use wattline_runtime::{ExchangePlan, Job, JobSettings, LaneMatch, Programs, StreamPlan};
use wattline_sql::RuleSet;

use crate::adapt::archive::{JOBS_FOLDER, JobStore, Tables};
use crate::adapt::decoder::StreamDecoder;
use crate::adapt::exchange::Inboxes;
use crate::adapt::plans::{rule_plans, state_plans};
use crate::adapt::program::{Lanes, Merged};
use crate::adapt::references::ReferenceFiles;
use crate::adapt::registry;
use crate::adapt::sink::AlertTopic;
use crate::adapt::source::{Files, Topics};
use crate::config;
use crate::project::{LoadedStream, Project, file_format};

/// Puts something around the Kafka source.
pub(crate) type WrapSource = Box<dyn FnOnce(Box<dyn Source>) -> Box<dyn Source> + Send>;

/// What a command decides about a run beside the configuration.
pub(crate) struct RunOptions {
    /// Which slot of how many, in a job of several.
    pub(crate) place: Option<Place>,
    /// Stop at the end of the topics as they are now.
    pub(crate) until_end: bool,
    /// The clock that the job goes by.
    pub(crate) clock: Arc<dyn Clock>,
    /// Counters that the caller reads.
    pub(crate) progress: Arc<Progress>,
    /// Turns true when the job shall drain and end.
    pub(crate) shutdown: watch::Receiver<bool>,
    /// Put around the Kafka source; the demo ends it where its feeder ends.
    pub(crate) wrap_kafka: Option<WrapSource>,
    /// Told of each step in which alerts are published.
    pub(crate) on_publish_step: Option<OnPublishStep>,
}

/// Where the archive of a project lies.
pub(crate) fn archive_root(project: &config::Config, folder: &Path) -> Result<ObjectRoot> {
    let location = location(&project.archive.url, folder);
    let options = config::reveal_all(&project.archive.options).map_err(|e| anyhow::anyhow!("[archive.options] {e}"))?;
    Ok(ObjectRoot::open(&location, &options)?)
}

/// What there is to say of an archive of which a part is missing.
pub(crate) fn half_restored(root: &ObjectRoot, restoring: &Restoring) -> String {
    format!(
        "the archive `{}` is restored in part only, from backup {} at `{}`: run `wattline archive restore` again, with `--at {}`",
        root.location(),
        restoring.snapshot,
        restoring.source,
        restoring.snapshot
    )
}

/// A URL of the configuration as it is; a path from the folder of the configuration on.
pub(crate) fn location(url: &str, folder: &Path) -> String {
    if url.contains("://") { url.to_owned() } else { folder.join(url).display().to_string() }
}

/// Connects everything a project names.
pub(crate) async fn build(project: &Project, options: RunOptions) -> Result<Job> {
    let config = &project.config;
    let root = archive_root(config, &project.folder)?;
    root.probe().await?;
    if let Some(restoring) = unfinished_restore(&root).await? {
        bail!("{}", half_restored(&root, &restoring));
    }
    let job = config.job.get_ref().clone();
    let place = options.place;
    let slot = place.map_or_else(|| config.slot.clone(), |place| place.slot.to_string());
    let clock = options.clock;
    let (sources, streams) = {
        // The client libraries block while they connect.
        let project_streams = project.streams.clone();
        let kafka = config.kafka.clone();
        let member = SlotMember { job: job.clone(), slot: slot.clone() };
        let share = place.map(|place| Share { place, inbox: inbox_of(&job, place) });
        let (until_end, wrap, folder) = (options.until_end, options.wrap_kafka, project.folder.clone());
        let clock = Arc::clone(&clock);
        tokio::task::spawn_blocking(move || {
            let (mut sources, streams) = connect_files(&project_streams, &folder, &clock)?;
            let topics: Vec<&LoadedStream> = project_streams.iter().filter(|of| of.config.topic.is_some()).collect();
            if !topics.is_empty() {
                let kafka: Box<dyn Source> =
                    Box::new(connect_topics(member, share, kafka, &topics, until_end, &clock)?);
                sources.push(match wrap {
                    Some(wrap) => wrap(kafka),
                    None => kafka,
                });
            }
            Ok::<Connected, anyhow::Error>((sources, streams))
        })
        .await
        .context("connecting the sources")??
    };
    let alert_sink = connect_alerts(config, slot.clone(), options.on_publish_step).await?;
    let exchange = match place {
        Some(place) => Some(connect_exchange(config, place).await?),
        None => None,
    };
    let names: Arc<[String]> = project.stream_names().into();
    let run = RunPrograms {
        workers: worker_count(&config.run),
        state: StateMemory::of(&config.run, &project.folder)?,
        streams: Arc::clone(&names),
        place,
    };
    let reference_tables = tokio::task::block_in_place(|| ReferenceFiles::of(project, run.clone()))?;
    let (reference_tables, programs) = first_programs(reference_tables, project, &run).await?;
    Ok(Job {
        settings: settings(config, &job, slot),
        rules: rule_plans(&project.rules, &names),
        states: state_plans(&project.rules, &names),
        references: programs.versions,
        reference_tables,
        streams,
        sources,
        decoders: decoders(&project.streams, registry::of_job(config, &root, &options.progress, &options.shutdown)?)?,
        lane_programs: programs.lane_programs,
        final_program: programs.final_program,
        programs: programs.programs,
        store: Arc::new(JobStore(root.child(JOBS_FOLDER).child(&job))),
        archive: Arc::new(Tables { archive: Archive::open(root), maintain: maintain_policy(&config.run) }),
        alert_sink,
        exchange,
        clock,
        threads: Arc::new(OsThreads),
        progress: options.progress,
        shutdown: options.shutdown,
    })
}

/// What the program itself has in memory, most of it its own text.
const PROGRAM_BYTES: u64 = 96 << 20;

/// Memory for data, of one slot: a process may come to run all of them.
fn data_bytes(run: &config::Run) -> u64 {
    (run.memory.0 - PROGRAM_BYTES.min(run.memory.0 / 2)) / u64::from(run.slots.max(1))
}

/// Threads for lanes, of one slot.
fn worker_count(run: &config::Run) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    match (run.workers, usize::try_from(run.slots).unwrap_or(1).max(1)) {
        (0, slots) => cores.div_ceil(slots),
        (workers, _) => workers,
    }
}

/// The partition by which other slots reach a slot.
fn inbox_of(job: &str, place: Place) -> LaneId {
    LaneId::new(exchange_topic(job), i32::try_from(place.slot).unwrap_or(i32::MAX))
}

/// The topic by which the slots of a job reach each other.
fn exchange_topic(job: &str) -> String {
    format!("wattline-{job}-exchange")
}

/// Files are merged in memory, and what they become too.
fn maintain_policy(run: &config::Run) -> MaintainPolicy {
    let usual = MaintainPolicy::default();
    let merge_target_bytes = usual.merge_target_bytes.min(data_bytes(run) / 16);
    let merge_early_bytes = usual.merge_early_bytes.min(merge_target_bytes / 2);
    MaintainPolicy { merge_target_bytes, merge_early_bytes, ..usual }
}

/// Bytes of stored state, before they are compressed, at which another object is begun: a 32nd of what is for data, within these.
const OBJECT_BYTES_MIN: u64 = 4 << 20;
const OBJECT_BYTES_MAX: u64 = 32 << 20;

/// How often it is looked whether something is due: buffers must not fill far beyond their limits meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn settings(config: &config::Config, job: &str, slot: String) -> JobSettings {
    let run = &config.run;
    let data_bytes = data_bytes(run);
    JobSettings {
        job: job.to_owned(),
        slot,
        nonce: uuid::Uuid::new_v4().simple().to_string(),
        tick: run.tick.duration(),
        look: LOOK_EVERY,
        checkpoint: run.checkpoint.duration(),
        checkpoint_bytes: data_bytes / 16,
        buffered_bytes_max: data_bytes / 8,
        state_bytes: data_bytes / 16,
        file_age: run.file_age.duration(),
        file_bytes: run.file_bytes.0,
        results_bytes: data_bytes / 16,
        object_bytes: (data_bytes / 32).clamp(OBJECT_BYTES_MIN, OBJECT_BYTES_MAX),
        manifest_retention: run.manifest_retention.duration(),
        maintenance: run.maintenance.duration(),
        correction: run.correction.duration(),
        references: run.references.duration(),
    }
}

/// How the programs of a job are made.
#[derive(Debug, Clone)]
pub(crate) struct RunPrograms {
    workers: usize,
    state: StateMemory,
    /// Names of all streams by their number.
    streams: Arc<[String]>,
    /// In a job of several slots: only the rules that are at home in this one are merged here.
    place: Option<Place>,
}

/// What the windows of the rules may have of the memory, and where the rest of them goes.
#[derive(Debug, Clone)]
struct StateMemory {
    bytes: usize,
    scratch: PathBuf,
}

impl StateMemory {
    fn of(run: &config::Run, folder: &Path) -> Result<Self> {
        // Unlike the folder for small temporary files this one is on a disk everywhere.
        let usual = Path::new("/var/tmp");
        let usual = || if usual.is_dir() { usual.to_path_buf() } else { std::env::temp_dir() };
        let scratch = run.scratch.as_ref().map_or_else(usual, |scratch| folder.join(scratch));
        tempfile::tempfile_in(&scratch).with_context(|| {
            format!("no file can be made in `{}`, the folder `[run] scratch` of the configuration", scratch.display())
        })?;
        Ok(Self { bytes: usize::try_from(data_bytes(run) / 6)?, scratch })
    }
}

/// The programs that a job begins with. Tables that are topics are read first.
async fn first_programs(
    tables: Option<ReferenceFiles>,
    project: &Project,
    run: &RunPrograms,
) -> Result<(Option<Box<dyn References>>, Reloaded)> {
    let loaded = || run.programs(&project.rules, project.references.clone());
    let Some(mut tables) = tables else { return Ok((None, loaded())) };
    if !tables.awaits_first_look() {
        return Ok((Some(Box::new(tables)), loaded()));
    }
    let (tables, seen) = tokio::task::spawn_blocking(move || {
        let seen = tables.look();
        (tables, seen)
    })
    .await
    .context("reading the reference tables")?;
    match (seen.reloaded, seen.problems.first()) {
        (Some(reloaded), _) => Ok((Some(Box::new(tables)), reloaded)),
        (None, Some(problem)) => bail!("{problem}"),
        (None, None) => Ok((Some(Box::new(tables)), loaded())),
    }
}

impl RunPrograms {
    /// The programs of rules over these versions of the reference tables, without state.
    pub(crate) fn programs(&self, rules: &RuleSet, versions: BTreeMap<String, String>) -> Reloaded {
        let streams = &self.streams;
        let lanes = |_worker| -> Box<dyn LaneProgram> {
            Box::new(Lanes { program: rules.lane_program(), streams: Arc::clone(streams) })
        };
        let StateMemory { bytes, scratch } = &self.state;
        Reloaded {
            versions,
            lane_programs: (0..self.workers).map(lanes).collect(),
            final_program: Box::new(Merged(
                rules
                    .final_program_of(|id| self.place.is_none_or(|place| place.is_home_of(id)))
                    .with_memory(*bytes, scratch),
            )),
            programs: single_programs(rules, streams, &self.state),
        }
    }
}

/// What a rule that is run again may have of the memory of all.
const SINGLE_RULE_SHARE: usize = 4;

/// Runs one rule again over the archive.
fn single_programs(rules: &RuleSet, streams: &Arc<[String]>, state: &StateMemory) -> Box<Programs> {
    let (rules, streams, state) = (rules.clone(), Arc::clone(streams), state.clone());
    Box::new(move |rule| {
        let (program, merged) = rules.programs_of(rule);
        let merged = merged.with_memory(state.bytes / SINGLE_RULE_SHARE, &state.scratch);
        (Box::new(Lanes { program, streams: Arc::clone(&streams) }), Box::new(Merged(merged)))
    })
}

fn decoders(
    streams: &[LoadedStream],
    registry: Option<Arc<dyn WriterSchemas>>,
) -> Result<Box<wattline_runtime::DecoderFactory>> {
    // Made once here, so that a mapping that does not fit is an error and not a dead worker.
    for stream in streams {
        StreamDecoder::new(stream, registry.as_ref())?;
    }
    let streams = streams.to_vec();
    Ok(Box::new(move |number: usize| -> Box<dyn Decoder> {
        let decoder = StreamDecoder::new(&streams[number], registry.as_ref());
        Box::new(decoder.expect("the same decoder was made before the job started"))
    }))
}

type Connected = (Vec<Box<dyn Source>>, Vec<StreamPlan>);

fn connect_files(streams: &[LoadedStream], folder: &Path, clock: &Arc<dyn Clock>) -> Result<Connected> {
    let mut sources: Vec<Box<dyn Source>> = Vec::new();
    let mut plans = Vec::new();
    for stream in streams {
        let lanes = match &stream.config.files {
            None => LaneMatch::Topic(stream.lane_topic().unwrap_or_default()),
            Some(pattern) => {
                let source = open_files(stream, &folder.join(pattern.get_ref()).display().to_string(), clock)?;
                let paths = source.lanes().iter().map(|lane| lane.topic.to_string()).collect();
                sources.push(Box::new(Files::new(source)));
                LaneMatch::Files(paths)
            }
        };
        plans.push(stream_plan(stream, lanes));
    }
    Ok((sources, plans))
}

fn connect_topics(
    member: SlotMember,
    share: Option<Share>,
    kafka: Option<config::Kafka>,
    streams: &[&LoadedStream],
    until_end: bool,
    clock: &Arc<dyn Clock>,
) -> Result<Topics> {
    let Some(kafka) = kafka else { bail!("a stream names a topic, but there is no section [kafka]") };
    let group = kafka.group_id.clone().unwrap_or_else(|| format!("wattline-{}", member.job));
    let topics = streams.iter().filter_map(|stream| stream.config.topic.clone()).collect();
    let mut source = KafkaSourceConfig::new(&kafka.bootstrap_servers, group, topics);
    source.member = Some(member);
    source.share = share;
    source.properties = kafka_properties(&kafka)?;
    source.until_end = until_end;
    source.connect_timeout = kafka.connect_timeout.duration();
    let names = streams.iter().filter_map(|stream| stream.lane_topic());
    Ok(Topics::new(KafkaSource::connect(source, clock_ms(clock))?, names))
}

fn clock_ms(clock: &Arc<dyn Clock>) -> wattline_connect::source::ClockMs {
    let clock = Arc::clone(clock);
    Arc::new(move || clock.now_ms())
}

pub(crate) fn kafka_properties(kafka: &config::Kafka) -> Result<BTreeMap<String, String>> {
    config::reveal_all(&kafka.properties).map_err(|e| anyhow::anyhow!("[kafka.properties] {e}"))
}

fn open_files(stream: &LoadedStream, pattern: &str, clock: &Arc<dyn Clock>) -> Result<FileSource> {
    let mut source = FileSourceConfig::new(pattern);
    source.format = stream.config.format.as_ref().and_then(|format| file_format(format.get_ref()));
    source.record_bytes_max = stream.limits().record_bytes_max;
    FileSource::open(source, clock_ms(clock)).with_context(|| format!("opening the files of stream `{}`", stream.name))
}

/// The raw table of a stream.
pub(crate) fn stream_table(stream: &LoadedStream) -> TableSpec {
    let event_time = stream.schema.event_time_field().name.clone();
    let mut sort_by = stream.schema.key.clone();
    sort_by.push(event_time.clone());
    TableSpec {
        name: stream.name.clone(),
        description: stream.schema.doc.clone().unwrap_or_default(),
        schema: stream.arrow.clone(),
        event_time,
        sort_by,
    }
}

/// The bounds of the event times of a stream.
pub(crate) fn time_guard(stream: &LoadedStream) -> TimeGuard {
    TimeGuard { future_bound_ms: stream.config.future_bound.0, oldest_us: stream.oldest_us }
}

fn stream_plan(stream: &LoadedStream, lanes: LaneMatch) -> StreamPlan {
    let table = stream_table(stream);
    StreamPlan {
        name: stream.name.clone(),
        schema: stream.schema.arrow.clone(),
        event_time: table.event_time.clone(),
        guard: time_guard(stream),
        idle_timeout: stream.config.idle_timeout.duration(),
        start: stream.start,
        on_gap: stream.config.on_gap.as_ref().map(|on_gap| *on_gap.get_ref()).unwrap_or_default(),
        lanes,
        table: stream.config.keep.then_some(table),
    }
}

/// How the slots of a job reach each other.
pub(crate) fn exchange_config(config: &config::Config) -> Result<ExchangeConfig> {
    let Some(kafka) = &config.kafka else { bail!("a job of several slots needs a section [kafka]") };
    Ok(ExchangeConfig {
        bootstrap_servers: kafka.bootstrap_servers.clone(),
        properties: kafka_properties(kafka)?,
        topic: exchange_topic(config.job.get_ref()),
        slots: config.run.slots,
        connect_timeout: kafka.connect_timeout.duration(),
        send_timeout: SEND_TIMEOUT,
    })
}

/// How long what slots tell may be on its way before it is sent again.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Rows that make up one message to another slot, about, in memory: well below what topics take.
const MESSAGE_BYTES: usize = 1 << 20;

async fn connect_exchange(config: &config::Config, place: Place) -> Result<ExchangePlan> {
    let exchange = exchange_config(config)?;
    let sender = tokio::task::spawn_blocking(move || -> Result<ExchangeSender> {
        ensure_topic(&exchange)?;
        Ok(ExchangeSender::new(exchange))
    })
    .await
    .context("connecting the exchange")??;
    let inbox = inbox_of(config.job.get_ref(), place);
    Ok(ExchangePlan { place, inbox, sink: Arc::new(Inboxes::new(sender)), message_bytes: MESSAGE_BYTES })
}

async fn connect_alerts(
    config: &config::Config,
    slot: String,
    on_step: Option<OnPublishStep>,
) -> Result<Option<Arc<dyn AlertSink>>> {
    let Some(topic) = config.alerts.as_ref().and_then(|alerts| alerts.topic.clone()) else { return Ok(None) };
    let Some(kafka) = config.kafka.clone() else { bail!("[alerts] names a topic, but there is no section [kafka]") };
    let job = config.job.get_ref().clone();
    let (publisher, early) = tokio::task::spawn_blocking({
        let job = job.clone();
        move || -> Result<(AlertPublisher, EarlyPublisher)> {
            let mut publisher = AlertPublisherConfig::new(&kafka.bootstrap_servers, topic, &job, &slot);
            publisher.properties = kafka_properties(&kafka)?;
            publisher.connect_timeout = kafka.connect_timeout.duration();
            publisher.on_step = on_step;
            let early = EarlyPublisher::new(publisher.clone());
            Ok((AlertPublisher::connect(publisher)?, early))
        }
    })
    .await
    .context("connecting the alert topic")??;
    Ok(Some(Arc::new(AlertTopic::new(publisher, early, &job))))
}
