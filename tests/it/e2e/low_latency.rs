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

    /// Takes the next alert in, if one comes in time; gives its rule, what it is about, and of when it is.
    fn take(&mut self, limit: Duration) -> Result<Option<(String, String, String)>> {
        let Some(message) = self.consumer.poll(limit) else { return Ok(None) };
        let payload = message?.payload().unwrap_or_default().to_vec();
        let alert: Value = serde_json::from_slice(&payload).context("an alert is no JSON")?;
        let text = |name: &str| alert[name].as_str().unwrap_or_default().to_owned();
        let (rule, entity) = (text("rule_id"), text("entity_id"));
        self.seen.entry((rule.clone(), text("alert_id"))).or_default().push(payload);
        Ok(Some((rule, entity, text("event_ts"))))
    }

    fn wait_for(&mut self, rule: &str, shop: &str) -> Result<()> {
        self.wait_until(rule, shop, |_| true)
    }

    fn wait_until(&mut self, rule: &str, shop: &str, is_then: impl Fn(&str) -> bool) -> Result<()> {
        let deadline = Instant::now() + ALERT_LIMIT;
        while Instant::now() < deadline {
            if self.take(POLL)?.is_some_and(|(of, entity, at)| of == rule && entity == shop && is_then(&at)) {
                return Ok(());
            }
        }
        bail!("`{rule}` said nothing about `{shop}` for {} s", ALERT_LIMIT.as_secs())
    }

    /// Ids on the topic are those of the table, and under each there is one content.
    fn has_what_is_kept(&self, folder: &JobFolder, rule: &str, alerts: usize) -> Result<()> {
        let rows = folder.query(&format!("SELECT alert_id FROM alerts WHERE rule_id = '{rule}'"))?;
        let mut kept: Vec<&str> = rows.iter().filter_map(|row| row["alert_id"].as_str()).collect();
        kept.sort_unstable();
        assert_eq!(kept.len(), alerts, "alerts of `{rule}`, each once in the table");
        assert_eq!(self.counts(rule).keys().map(String::as_str).collect::<Vec<_>>(), kept, "ids of `{rule}`");
        let same = |payloads: &Vec<Vec<u8>>| payloads.iter().all(|payload| *payload == payloads[0]);
        ensure!(self.seen.values().all(same), "an alert that came again says something else");
        Ok(())
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
        // Every event is one.
        reader.has_what_is_kept(&folder, rule, VISITS + 1)?;
        let counts = reader.counts(rule);
        ensure!(rule == "fast" || counts.values().all(|count| *count == 1), "published twice: {counts:?}");
    }
    Ok(())
}

/// Rules whose rows become final when time has come on: a condition of single events, which changes with each of a shop, and one of
/// windows, which changes with each of these.
const CONDITIONS: [(&str, &str); 2] = [
    ("each_event", "SELECT shop, at, date_part('second', at) % 10 = 0 AS firing FROM visits"),
    (
        "each_window",
        "SELECT shop, window_start, window_end, count(*) AS measured, date_part('second', window_start) % 20 = 0 AS firing \
         FROM TUMBLE(visits, at, INTERVAL '10 seconds') GROUP BY shop, window_start, window_end",
    ),
];
/// Enough that each partition has some.
const SHOPS: usize = 8;
const STEP_S: usize = 5;
const WINDOW_S: usize = 10;
/// Steps of one kind.
const STEPS: usize = 30;

fn conditions_job(topic: &str, alert_topic: &str) -> Result<JobFolder> {
    let folder = job(topic, alert_topic)?;
    for id in ["fast", "slow"] {
        std::fs::remove_file(folder.path().join(format!("sql/{id}.sql")))?;
    }
    for (id, sql) in CONDITIONS {
        let header = "kind = \"alert\"\nentity = \"shop\"\ndelivery = \"low_latency\"\ndelay = \"1 second\"";
        folder.write(&format!("sql/{id}.sql"), &format!("/*---\nid = \"{id}\"\n{header}\n---*/\n{sql}\n"))?;
    }
    Ok(folder)
}

/// Every shop has a visit, five seconds after the last.
fn visit_all(producer: &mut Producer, topic: &str, step: usize) -> Result<()> {
    let at_us = 1_772_409_600_000_000 + i64::try_from(step * STEP_S)? * 1_000_000;
    for shop in 0..SHOPS {
        let (key, payload) = (format!("s{shop}"), format!("{{\"shop\":\"s{shop}\",\"at\":{at_us}}}"));
        producer.send(&KeyedMessage { topic, key: key.as_bytes(), payload: payload.as_bytes(), timestamp_ms: None })?;
    }
    producer.flush(FLUSH_LIMIT)?;
    Ok(())
}

/// That instant as alerts say it.
fn second(second: usize) -> String {
    format!("2026-03-02T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

fn say_how_long(what: &str, took: &mut [Duration]) -> Result<()> {
    took.sort_unstable();
    let (median, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    eprintln!(
        "{what}, from the event that makes its row final to the alert that can be read: median {median:?}, p99 {p99:?}"
    );
    ensure!(median < TICK / 6 && p99 < TICK, "{what}: median {median:?}, p99 {p99:?}");
    Ok(())
}

#[test]
fn low_latency_alerts_of_conditions_come_before_their_tick_and_never_say_something_else() -> Result<()> {
    let broker = TestBroker::shared();
    let (topic, alert_topic) = ("low-latency-conditions", "low-latency-conditions-alerts");
    broker.create_topic(topic, 2, &[])?;
    broker.create_topic(alert_topic, 1, &[])?;
    let folder = conditions_job(topic, alert_topic)?;
    let mut reader = Reader::new(broker, alert_topic)?;
    let mut producer = Producer::connect(&broker.bootstrap(), &Default::default())?;
    let mut running = folder.start(&["run"])?;
    // Before there is a link that names the lanes, nothing is told early.
    visit_all(&mut producer, topic, 0)?;
    visit_all(&mut producer, topic, 1)?;
    reader.wait_for("each_event", "s0").with_context(|| format!("the job said\n{}", running.log_tail()))?;

    let mut took = Vec::new();
    let mut step = 2;
    while step < STEPS {
        let sent = Instant::now();
        visit_all(&mut producer, topic, step)?;
        let before = second((step - 1) * STEP_S);
        reader.wait_until("each_event", "s0", |at| at == before)?;
        took.push(sent.elapsed());
        step += 1;
        thread::park_timeout(REST);
    }
    say_how_long("a condition", &mut took)?;

    took.clear();
    while step < 2 * STEPS {
        let sent = Instant::now();
        visit_all(&mut producer, topic, step)?;
        // With a delay of one second each second step closes a window.
        if step % 2 == 1 {
            let end = second((step * STEP_S - 1) / WINDOW_S * WINDOW_S);
            reader.wait_until("each_window", "s0", |at| at == end)?;
            took.push(sent.elapsed());
        }
        step += 1;
        thread::park_timeout(REST);
    }
    say_how_long("a window", &mut took)?;
    let twice = |rule: &str| reader.counts(rule).into_iter().filter(|(_, count)| *count > 1).count();
    ensure!(twice("each_event") + twice("each_window") == 0, "nothing has failed, and alerts came twice");

    // What was told last is in no link.
    visit_all(&mut producer, topic, step)?;
    let before = second((step - 1) * STEP_S);
    reader.wait_until("each_event", "s0", |at| at == before)?;
    running.kill9()?;
    folder.run_until_end(RUN_LIMIT)?;
    while reader.take(SILENCE)?.is_some() {}
    let steps = step + 1;
    reader.has_what_is_kept(&folder, "each_event", steps * SHOPS)?;
    reader.has_what_is_kept(&folder, "each_window", (steps * STEP_S).div_ceil(WINDOW_S) * SHOPS)
}
