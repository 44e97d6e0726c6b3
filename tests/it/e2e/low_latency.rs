//! Alerts of a rule with `delivery = "low_latency"` are there long before their tick, and after a kill with the ids that they had.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use wattline_connect::kafka::admin::{KeyedMessage, Producer};

use super::job::JobFolder;
use crate::kafka_broker::TestBroker;

const RUN_LIMIT: Duration = Duration::from_secs(60);
const ALERT_LIMIT: Duration = Duration::from_secs(60);
const FLUSH_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(200);
const REST: Duration = Duration::from_millis(50);
/// Silence after which a topic is taken to have nothing more.
const SILENCE: Duration = Duration::from_secs(2);

const TICK: Duration = Duration::from_secs(3);
const VISITS: usize = 80;

const SCHEMA: &str = r#"{"type":"record","name":"visits","event_time":"at","key":["shop"],"fields":[
    {"name":"shop","type":"string"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}}]}"#;

fn job(topic: &str, alert_topic: &str) -> Result<JobFolder> {
    let folder = JobFolder::new(topic)?;
    folder.write("visits.avsc", SCHEMA)?;
    for (id, delivery) in [("fast", "low_latency"), ("slow", "exactly_once")] {
        folder.write(
            &format!("sql/{id}.sql"),
            &format!(
                "/*---\nid = \"{id}\"\nkind = \"alert\"\nentity = \"shop\"\ndelivery = \"{delivery}\"\n---*/\n\
                 SELECT shop, at FROM visits\n"
            ),
        )?;
    }
    folder.write(
        "wattline.toml",
        &format!(
            "job = \"{topic}\"\n[kafka]\nbootstrap_servers = \"{bootstrap}\"\n[alerts]\ntopic = \"{alert_topic}\"\n\
             [streams.visits]\nschema = \"visits.avsc\"\ntopic = \"{topic}\"\n[rules]\npaths = [\"sql\"]\n\
             [archive]\nurl = \"archive\"\n[run]\ntick = \"{tick} seconds\"\ncheckpoint = \"{tick} seconds\"\n",
            bootstrap = TestBroker::shared().bootstrap(),
            tick = TICK.as_secs(),
        ),
    )?;
    Ok(folder)
}

/// Whoever listens to the alert topic.
struct Reader {
    consumer: BaseConsumer,
    /// Payloads by rule and `alert_id`, in the order in which they came.
    seen: BTreeMap<(String, String), Vec<Vec<u8>>>,
}

impl Reader {
    fn new(broker: &TestBroker, topic: &str) -> Result<Self> {
        let consumer: BaseConsumer = broker
            .client_config()
            .set("group.id", format!("{topic}-reader"))
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .create()?;
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset(topic, 0, Offset::Beginning)?;
        consumer.assign(&partitions)?;
        Ok(Self { consumer, seen: BTreeMap::new() })
    }

    /// Takes the next alert in, if one comes in time; gives its rule and what it is about.
    fn take(&mut self, limit: Duration) -> Result<Option<(String, String)>> {
        let Some(message) = self.consumer.poll(limit) else { return Ok(None) };
        let payload = message?.payload().unwrap_or_default().to_vec();
        let alert: Value = serde_json::from_slice(&payload).context("an alert is no JSON")?;
        let text = |name: &str| alert[name].as_str().unwrap_or_default().to_owned();
        let (rule, entity) = (text("rule_id"), text("entity_id"));
        self.seen.entry((rule.clone(), text("alert_id"))).or_default().push(payload);
        Ok(Some((rule, entity)))
    }

    fn wait_for(&mut self, rule: &str, shop: &str) -> Result<()> {
        let deadline = Instant::now() + ALERT_LIMIT;
        while Instant::now() < deadline {
            if self.take(POLL)?.is_some_and(|(of, entity)| of == rule && entity == shop) {
                return Ok(());
            }
        }
        bail!("`{rule}` said nothing about `{shop}` for {} s", ALERT_LIMIT.as_secs())
    }

    /// Ids of the alerts of a rule, in order, each with how often it came.
    fn counts(&self, rule: &str) -> BTreeMap<String, usize> {
        let of_rule = self.seen.iter().filter(|((of, _), _)| of == rule);
        of_rule.map(|((_, id), payloads)| (id.clone(), payloads.len())).collect()
    }
}

/// One visit to a shop of its own.
fn visit(producer: &mut Producer, topic: &str, number: usize) -> Result<String> {
    let shop = format!("s{number}");
    let at_us = 1_772_409_600_000_000 + i64::try_from(number)? * 1_000_000;
    let payload = format!("{{\"shop\":\"{shop}\",\"at\":{at_us}}}");
    producer.send(&KeyedMessage { topic, key: b"s", payload: payload.as_bytes(), timestamp_ms: None })?;
    producer.flush(FLUSH_LIMIT)?;
    Ok(shop)
}

#[test]
fn low_latency_alerts_come_before_their_tick_and_never_under_another_id() -> Result<()> {
    let broker = TestBroker::shared();
    let (topic, alert_topic) = ("low-latency", "low-latency-alerts");
    broker.create_topic(topic, 1, &[])?;
    broker.create_topic(alert_topic, 1, &[])?;
    let folder = job(topic, alert_topic)?;
    let mut reader = Reader::new(broker, alert_topic)?;
    let mut producer = Producer::connect(&broker.bootstrap(), &Default::default())?;
    let mut running = folder.start(&["run"])?;
    // The job, its clients and the topics have to get going first.
    let first = visit(&mut producer, topic, 0)?;
    reader.wait_for("fast", &first).with_context(|| format!("the job said\n{}", running.log_tail()))?;

    let mut took = Vec::new();
    for number in 1..VISITS {
        let sent = Instant::now();
        let shop = visit(&mut producer, topic, number)?;
        reader.wait_for("fast", &shop)?;
        took.push(sent.elapsed());
        thread::park_timeout(REST);
    }
    took.sort_unstable();
    let (median, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    ensure!(median < TICK / 6 && p99 < TICK, "from the event to its alert: median {median:?}, p99 {p99:?}");
    let twice: Vec<_> = reader.counts("fast").into_iter().filter(|(_, count)| *count > 1).collect();
    ensure!(twice.is_empty(), "nothing has failed, and alerts came twice: {twice:?}");

    let last = visit(&mut producer, topic, VISITS)?;
    reader.wait_for("fast", &last)?;
    running.kill9()?;
    folder.run_until_end(RUN_LIMIT)?;
    while reader.take(SILENCE)?.is_some() {}

    for rule in ["fast", "slow"] {
        let rows = folder.query(&format!("SELECT alert_id FROM alerts WHERE rule_id = '{rule}'"))?;
        let mut kept: Vec<&str> = rows.iter().filter_map(|row| row["alert_id"].as_str()).collect();
        kept.sort_unstable();
        assert_eq!(kept.len(), VISITS + 1, "every event is one alert of `{rule}`, once in the table");
        let counts = reader.counts(rule);
        assert_eq!(counts.keys().map(String::as_str).collect::<Vec<_>>(), kept, "ids of `{rule}`");
        ensure!(rule == "fast" || counts.values().all(|count| *count == 1), "published twice: {counts:?}");
    }
    let same = |payloads: &Vec<Vec<u8>>| payloads.iter().all(|payload| *payload == payloads[0]);
    ensure!(reader.seen.values().all(same), "an alert that came again says something else");
    Ok(())
}
