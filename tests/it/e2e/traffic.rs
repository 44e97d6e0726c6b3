//! Made-up traffic on real topics: three streams, four partitions each, and what is in them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use wattline_connect::kafka::admin::{KeyedMessage, Producer, partition_of_key};
use wattline_sim::{Counts, Devices, Disorder, Generator, Meters, Subject, Transactions, reference};

use super::job::JobFolder;
use super::oracle::demo_rules;
use crate::kafka_broker::TestBroker;

pub(super) const PARTITIONS: i32 = 4;
const FLUSH_LIMIT: Duration = Duration::from_secs(60);
/// Records between two calls of the pace of a slow producer.
const PACE_EVERY: u64 = 1_000;
/// How long a slow producer rests at first.
const FIRST_REST: Duration = Duration::from_millis(80);

/// A stream as the job reads it.
#[derive(Debug, Clone)]
pub(super) struct StreamOfTest {
    pub(super) name: &'static str,
    pub(super) topic: String,
    pub(super) delay_ms: i64,
}

/// Three streams whose topics begin with a name of the test's own.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    pub(super) job: String,
    pub(super) readings: StreamOfTest,
    pub(super) metrics: StreamOfTest,
    pub(super) transactions: StreamOfTest,
    pub(super) alert_topic: String,
    pub(super) meters: Meters,
    pub(super) devices: Devices,
    pub(super) steps: Transactions,
    pub(super) seed: u64,
}

/// Stream name → what was made, by partition.
pub(super) type Made = BTreeMap<&'static str, Vec<Counts>>;

impl Traffic {
    pub(super) fn new(test: &str, seed: u64, meters: Meters, devices: Devices, steps: Transactions) -> Self {
        let stream = |name, short: &str, delay_ms| StreamOfTest { name, topic: format!("{test}-{short}"), delay_ms };
        Self {
            job: test.to_owned(),
            readings: stream("meter_readings", "readings", 120_000),
            metrics: stream("device_metrics", "metrics", 600_000),
            transactions: stream("business_transactions", "transactions", 3_600_000),
            alert_topic: format!("{test}-alerts"),
            meters,
            devices,
            steps,
            seed,
        }
    }

    pub(super) fn streams(&self) -> [&StreamOfTest; 3] {
        [&self.readings, &self.metrics, &self.transactions]
    }

    pub(super) fn create_topics(&self, broker: &TestBroker) -> Result<()> {
        for stream in self.streams() {
            broker.create_topic(&stream.topic, PARTITIONS, &[])?;
        }
        broker.create_topic(&self.alert_topic, PARTITIONS, &[])
    }

    /// Produces everything; `pace` is called now and then with the number of records so far and may wait.
    pub(super) fn produce(&self, bootstrap: &str, mut pace: impl FnMut(u64)) -> Result<Made> {
        let properties = BTreeMap::from([("compression.type".to_owned(), "lz4".to_owned())]);
        let mut producer = Producer::connect(bootstrap, &properties)?;
        let mut made = Made::new();
        let (r, m, t) = (&self.readings, &self.metrics, &self.transactions);
        made.insert(t.name, self.produce_stream(&mut producer, t, self.steps, &mut pace)?);
        made.insert(m.name, self.produce_stream(&mut producer, m, self.devices, &mut pace)?);
        made.insert(r.name, self.produce_stream(&mut producer, r, self.meters, &mut pace)?);
        producer.flush(FLUSH_LIMIT)?;
        Ok(made)
    }

    /// Produces everything, but until `hurry` so slowly that there is always more to come: the less is left, the longer it
    /// rests. Whatever a test does meanwhile, and on however slow a machine, it finds a job that has something to read.
    pub(super) fn produce_slowly(&self, bootstrap: &str, hurry: &AtomicBool) -> Result<Made> {
        let all = self.meters.records() + self.devices.records() + self.steps.records();
        let mut left = all;
        self.produce(bootstrap, |_sent| {
            left = left.saturating_sub(PACE_EVERY).max(PACE_EVERY);
            let rest = FIRST_REST.mul_f64(all as f64 / left as f64);
            let rested = Instant::now();
            while !hurry.load(Ordering::Relaxed) && rested.elapsed() < rest {
                thread::park_timeout(FIRST_REST);
            }
        })
    }

    fn produce_stream<S: Subject>(
        &self,
        producer: &mut Producer,
        stream: &StreamOfTest,
        subject: S,
        pace: &mut impl FnMut(u64),
    ) -> Result<Vec<Counts>> {
        let lanes = usize::try_from(PARTITIONS)?;
        let disorder = Disorder::usual(stream.delay_ms);
        let mut generator =
            Generator::new(subject, disorder, self.seed, lanes, |key| partition_of_key(key, PARTITIONS));
        let mut sent = 0;
        while let Some(record) = generator.next() {
            let (key, payload) = (record.key, record.payload);
            producer
                .send(&KeyedMessage { topic: &stream.topic, key, payload, timestamp_ms: None })
                .with_context(|| format!("record {sent} of `{}`", stream.topic))?;
            sent += 1;
            if sent % PACE_EVERY == 0 {
                pace(sent);
            }
        }
        Ok(generator.counts_by_partition().to_vec())
    }

    /// Writes the reference tables and a configuration that runs all shipped rules.
    pub(super) fn configure(&self, folder: &JobFolder, bootstrap: &str, run: &str) -> Result<()> {
        folder.write("reference/meters.csv", &reference::meters_csv(&self.meters))?;
        folder.write("reference/devices.csv", &reference::devices_csv(&self.devices))?;
        folder.write("reference/device_limits.csv", &reference::device_limits_csv(&self.devices))?;
        folder.write("reference/tariffs.csv", &reference::tariffs_csv())?;
        // The job's name is also that of its transactions: jobs that run side by side must not share it.
        let mut text = format!("job = \"{}\"\n[kafka]\nbootstrap_servers = \"{bootstrap}\"\n", self.job);
        for stream in self.streams() {
            let StreamOfTest { name, topic, delay_ms } = stream;
            text.push_str(&format!(
                "[streams.{name}]\nschema = \"builtin:{name}\"\ntopic = \"{topic}\"\ndelay = \"{delay_ms} ms\"\n"
            ));
        }
        for table in REFERENCE_TABLES {
            text.push_str(&format!("[reference.{table}]\npath = \"reference/{table}.csv\"\n"));
        }
        let rules = demo_rules()?;
        text.push_str(&format!("[rules]\npaths = {rules:?}\n[archive]\nurl = \"archive\"\n{run}\n"));
        text.push_str(&format!("[alerts]\ntopic = \"{}\"\n", self.alert_topic));
        folder.write("wattline.toml", &text)
    }
}

pub(super) const REFERENCE_TABLES: [&str; 4] = ["meters", "devices", "device_limits", "tariffs"];
