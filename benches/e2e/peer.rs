//! One other stream processor: how it is started, and whether its result is right.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};
use serde_json::Value;

use crate::kafka_broker::TestBroker;
use crate::measured_child::{self, Usage};
use crate::scratch::Scratch;
use crate::speed_job::Topic;
use crate::tree;

const PARTITIONS: i32 = 4;

pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) jobs: &'static [&'static str],
    /// Whether the result is a topic; else it is Parquet files.
    gives_topic: bool,
}

pub(crate) const PEERS: [Peer; 3] = [
    Peer { name: "flink", title: "Flink SQL", jobs: &["raw", "tumble"], gives_topic: false },
    Peer { name: "spark", title: "Spark Structured Streaming", jobs: &["raw", "tumble"], gives_topic: false },
    Peer { name: "kafka-streams", title: "Kafka Streams", jobs: &["tumble"], gives_topic: true },
];

/// The largest count that was given for each key and window: of results that are given again while they grow, the last one.
type Counts = HashMap<String, u64>;

impl Peer {
    /// Runs a job over a topic, and looks whether it gave what it must.
    pub(crate) fn measure(&self, broker: &TestBroker, job: &str, (name, topic): (&str, &Topic)) -> Result<Usage> {
        let folder = Scratch::new("peer")?;
        let output = match self.gives_topic {
            true => format!("{}-{}", folder.path().file_name().unwrap_or_default().display(), self.name),
            false => folder.path().join("out").display().to_string(),
        };
        let built = tree::target_folder()?.join("peers").join(self.name);
        let classes = format!("{}:{}", built.join("classes").display(), built.join("dependency/*").display());
        let options = format!("@{}", tree::root()?.join("benches/peers").join(self.name).join("jvm.options").display());
        let bootstrap = broker.bootstrap();
        let args = [
            options.as_str(),
            "-cp",
            &classes,
            "Main",
            "--bootstrap",
            &bootstrap,
            "--topic",
            name,
            "--job",
            job,
            "--out",
            &output,
        ];
        let usage = measured_child::run(Path::new("java"), &args, folder.path())?;
        match (job, self.gives_topic) {
            ("raw", _) => {
                let rows = rows_of_files(Path::new(&output))?;
                ensure!(rows == topic.events, "{rows} rows of {} events", topic.events);
            }
            (_, false) => check(&counts_of_files(Path::new(&output))?, topic)?,
            (_, true) => check(&counts_of_topic(broker, &output)?, topic)?,
        }
        Ok(usage)
    }
}

fn check(counts: &Counts, topic: &Topic) -> Result<()> {
    let sum: u64 = counts.values().sum();
    ensure!(sum == topic.events, "the windows hold {sum} events of {}", topic.events);
    ensure!(counts.len() as u64 == topic.groups, "{} windows of {}", counts.len(), topic.groups);
    Ok(())
}

fn parquet_files(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("no folder `{}`", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(parquet_files(&path)?);
        } else if !name.starts_with(['.', '_'])
            && !name.ends_with(".crc")
            && !path.to_string_lossy().contains("/checkpoint")
        {
            found.push(path);
        }
    }
    Ok(found)
}

fn rows_of_files(folder: &Path) -> Result<u64> {
    let mut rows = 0;
    for path in parquet_files(folder)? {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path)?);
        let reader = reader.with_context(|| path.display().to_string())?;
        rows += u64::try_from(reader.metadata().file_metadata().num_rows())?;
    }
    Ok(rows)
}

fn counts_of_files(folder: &Path) -> Result<Counts> {
    let mut counts = Counts::new();
    for path in parquet_files(folder)? {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path)?);
        let reader = reader.with_context(|| path.display().to_string())?.build()?;
        for batch in reader {
            let batch = batch?;
            let text = |name: &str| {
                let column = batch.column_by_name(name).with_context(|| format!("no column `{name}`"))?;
                Ok::<_, anyhow::Error>(cast(column, &DataType::Utf8)?)
            };
            let (meters, starts) = (text("meter_id")?, text("window_start")?);
            let events = cast(batch.column_by_name("events").context("no column `events`")?, &DataType::Int64)?;
            let (meters, starts) = (meters.as_string::<i32>(), starts.as_string::<i32>());
            let events = events.as_primitive::<Int64Type>();
            for row in 0..batch.num_rows() {
                ensure!(starts.is_valid(row), "a window without a start");
                note(
                    &mut counts,
                    format!("{} {}", meters.value(row), starts.value(row)),
                    events.value(row).unsigned_abs(),
                );
            }
        }
    }
    Ok(counts)
}

/// Keys are those of the messages; values are JSON with the number of `events`.
fn counts_of_topic(broker: &TestBroker, topic: &str) -> Result<Counts> {
    let consumer: BaseConsumer = broker
        .client_config()
        .set("group.id", "bench-peers")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let (mut counts, mut open) = (Counts::new(), PARTITIONS);
    while open > 0 {
        match consumer.poll(std::time::Duration::from_secs(30)).context("the topic is silent")? {
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            message => {
                let message = message?;
                let value: Value = serde_json::from_slice(message.payload().unwrap_or_default())?;
                let events = value.get("events").and_then(Value::as_u64).context("a result without `events`")?;
                note(&mut counts, String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(), events);
            }
        }
    }
    Ok(counts)
}

fn note(counts: &mut Counts, key: String, events: u64) {
    let known = counts.entry(key).or_default();
    *known = events.max(*known);
}
