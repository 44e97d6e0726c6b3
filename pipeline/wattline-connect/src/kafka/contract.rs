//! What any Kafka cluster must do for wattline: checks to be called with the address of a cluster.
//!
//! They stand here and not in one test, because the embedded broker fails half of them by nature: they are for
//! a real cluster, where transactions are isolated, fencing works and markers survive. Each check makes topics of its
//! own, whose names begin with `prefix`, and panics with what it found.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wattline_core::record::{LaneId, RecordBlock};

use super::Properties;
use super::admin::{KeyedMessage, Producer, TopicSpec, create_topics, partition_of_key};
use super::alerts::{AlertMessage, AlertPublisher, AlertPublisherConfig, Outcome};
use super::source::{KafkaSource, KafkaSourceConfig, Position, SlotMember};
use crate::error::{Error, Result};
use crate::source::SourceEvent;

/// Longest a check waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the group keeps the place of a member that says nothing, and how long one that comes back may take to have its lanes.
const SESSION_MS: &str = "45000";
const COMEBACK_MAX: Duration = Duration::from_secs(30);

/// A bounded run reads every record of every lane once, in order, in the partition of its key; committed
/// offsets can be read back; a lost position is reported.
///
/// # Errors
/// What the cluster refuses.
///
/// # Panics
/// If the cluster or the source breaks the contract.
pub fn source_contract(bootstrap_servers: &str, prefix: &str) -> Result<()> {
    let topic = make_topic(bootstrap_servers, &format!("{prefix}.source"), 4)?;
    let mut producer = Producer::connect(bootstrap_servers, &Properties::new())?;
    let keys: Vec<String> = (0..20_000).map(|n| format!("meter-{n}")).collect();
    let message = |key| KeyedMessage { topic: &topic, key, payload: key, timestamp_ms: None };
    producer.send_all(keys.iter().map(|key| message(key.as_bytes())))?;

    let mut source = open_bounded(bootstrap_servers, &topic)?;
    let (blocks, lost) = read_to_end(&mut source, Position::Earliest)?;
    assert!(lost.is_empty(), "nothing is lost at the beginning: {lost:?}");
    let mut next: BTreeMap<LaneId, i64> = BTreeMap::new();
    for block in &blocks {
        for k in 0..block.len() {
            let expected = next.entry(block.lane.clone()).or_default();
            assert_eq!(block.offsets[k], *expected, "{}", block.lane);
            *expected += 1;
            assert_eq!(
                partition_of_key(block.payload(k), 4),
                block.lane.partition,
                "our partitioner is the clients' one"
            );
        }
    }
    assert_eq!(next.values().sum::<i64>(), 20_000);

    let positions: Vec<(LaneId, i64)> = next.into_iter().collect();
    source.commit(&positions, "contract")?;
    let lanes: Vec<LaneId> = positions.iter().map(|(lane, _)| lane.clone()).collect();
    let deadline = Instant::now() + PATIENCE;
    while source.committed(&lanes)?.len() < lanes.len() {
        assert!(Instant::now() < deadline, "the committed offsets never appear");
        source.poll(Duration::from_millis(50))?;
    }
    drop(source);

    let mut beyond = open_bounded(bootstrap_servers, &topic)?;
    let (blocks, lost) = read_to_end(&mut beyond, Position::Offset(1_000_000))?;
    assert!(blocks.is_empty(), "a position that is not there gives nothing");
    assert_eq!(lost.len(), 4, "each lane says so: {lost:?}");
    Ok(())
}

/// A slot that comes back has its lanes before the session of the process before it is over, also those of a topic that it did
/// not read then; a process whose place was taken is told so.
///
/// # Errors
/// What the cluster refuses.
///
/// # Panics
/// If the cluster or the source breaks the contract.
pub fn member_contract(bootstrap_servers: &str, prefix: &str) -> Result<()> {
    for strategy in ["range", "cooperative-sticky"] {
        let old = make_topic(bootstrap_servers, &format!("{prefix}.{strategy}.old"), 2)?;
        let new = make_topic(bootstrap_servers, &format!("{prefix}.{strategy}.new"), 3)?;
        let open = |topics: &[&String]| {
            let topics = topics.iter().map(|topic| (*topic).clone()).collect();
            let mut config = KafkaSourceConfig::new(bootstrap_servers, format!("{old}.contract"), topics);
            config.member = Some(SlotMember { job: prefix.to_owned(), slot: "0".to_owned() });
            config.properties.insert("partition.assignment.strategy".to_owned(), strategy.to_owned());
            config.properties.insert("session.timeout.ms".to_owned(), SESSION_MS.to_owned());
            KafkaSource::connect(config, Arc::new(|| 0))
        };
        assert_eq!(first_lanes(&mut open(&[&old])?)?.len(), 2, "{strategy}");

        let mut back = Instant::now();
        let mut again = open(&[&old])?;
        assert_eq!(first_lanes(&mut again)?.len(), 2, "{strategy}: the lanes of the process before it");
        assert!(back.elapsed() < COMEBACK_MAX, "{strategy}: {:?} until the lanes were there", back.elapsed());
        drop(again);

        back = Instant::now();
        let mut more = open(&[&old, &new])?;
        assert_eq!(first_lanes(&mut more)?.len(), 5, "{strategy}: the lanes of the new topic too");
        assert!(back.elapsed() < COMEBACK_MAX, "{strategy}: {:?} until all lanes were there", back.elapsed());

        let mut successor = open(&[&old, &new])?;
        assert_eq!(first_lanes(&mut successor)?.len(), 5, "{strategy}: the lanes of the member that it replaces");
        let deadline = Instant::now() + PATIENCE;
        let told = loop {
            assert!(Instant::now() < deadline, "{strategy}: a member that was replaced goes on");
            if let Err(error) = more.poll(Duration::from_millis(100)) {
                break error;
            }
        };
        assert!(matches!(told, Error::MemberFenced { .. }), "{strategy}: {told}");
    }
    Ok(())
}

/// The lanes that a source is given first.
fn first_lanes(source: &mut KafkaSource) -> Result<Vec<LaneId>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no lanes are assigned");
        for event in source.poll(Duration::from_millis(100))? {
            if let SourceEvent::Assigned(lanes) = event {
                return Ok(lanes);
            }
        }
    }
}

/// Transactions are all or nothing, the marker goes with them, and a second publisher of the slot fences the first.
///
/// # Errors
/// What the cluster refuses.
///
/// # Panics
/// If the cluster or the publisher breaks the contract.
pub fn alerts_contract(bootstrap_servers: &str, prefix: &str) -> Result<()> {
    let topic = make_topic(bootstrap_servers, &format!("{prefix}.alerts"), 2)?;
    let mut config = AlertPublisherConfig::new(bootstrap_servers, &topic, prefix, "0");
    config.properties.insert("message.max.bytes".to_owned(), "10000".to_owned());
    let mut first = AlertPublisher::connect(config.clone())?;
    assert_eq!(first.last_marker()?, None, "nothing is out yet");

    let out: Vec<AlertMessage> = (0..50).map(|n| alert(&format!("out-{n}"), 100)).collect();
    assert_eq!(first.publish(&out, "job/i/c/1", 1)?, Outcome::Published);
    assert_eq!(first.last_marker()?.as_deref(), Some("job/i/c/1"));

    let refused = first.publish(&[alert("rolled-back", 100), alert("large", 20_000)], "job/i/c/2", 2);
    assert!(matches!(refused, Err(Error::AlertTooLarge { .. })), "{refused:?}");
    assert_eq!(first.last_marker()?.as_deref(), Some("job/i/c/1"), "a rolled-back marker is not out");
    assert_eq!(first.publish(&[], "job/i/c/3", 3)?, Outcome::Published);
    assert_eq!(first.last_marker()?.as_deref(), Some("job/i/c/3"), "a tick without alerts moves the marker");

    let mut second = AlertPublisher::connect(config)?;
    let fenced = first.publish(&[alert("zombie", 100)], "job/i/c/4", 4);
    assert!(matches!(fenced, Err(Error::PublisherFenced { .. })), "{fenced:?}");
    assert_eq!(second.last_marker()?.as_deref(), Some("job/i/c/3"), "the successor sees the last marker that is out");
    assert_eq!(second.publish(&[alert("out-50", 100)], "job/i/c/4", 4)?, Outcome::Published);

    // The log ends with transaction markers, which are offsets without records: reading must end all the same.
    let (blocks, _) = read_to_end(&mut open_bounded(bootstrap_servers, &topic)?, Position::Earliest)?;
    let mut seen: Vec<String> = blocks.iter().flat_map(payloads).collect();
    seen.sort_unstable();
    let mut expected: Vec<String> = (0..51).map(|n| format!("out-{n}")).collect();
    expected.sort_unstable();
    assert_eq!(seen, expected, "readers see what was committed, once, and nothing else");
    Ok(())
}

/// An alert that only the topic finds too large is named, whatever else was to go out with it, and nothing is out; without it
/// all the others go out. So do many that are too large only together.
///
/// # Errors
/// What the cluster refuses.
///
/// # Panics
/// If the cluster or the publisher breaks the contract.
pub fn large_alerts_contract(bootstrap_servers: &str, prefix: &str) -> Result<()> {
    let limit = ("max.message.bytes".to_owned(), "4000".to_owned());
    let topic = make_topic_with(bootstrap_servers, &format!("{prefix}.large"), 1, vec![limit])?;
    let mut config = AlertPublisherConfig::new(bootstrap_servers, &topic, &format!("{prefix}-large"), "0");
    // The topic looks at what is sent, and blanks come to nothing.
    config.properties.insert("compression.type".to_owned(), "none".to_owned());
    let mut publisher = AlertPublisher::connect(config)?;
    let small: Vec<AlertMessage> = (0..50).map(|n| alert(&format!("small-{n}"), 500)).collect();
    let mut all = small.clone();
    all.insert(25, alert("large", 8_000));
    let refused = publisher.publish(&all, "job/i/c/1", 1);
    let named = matches!(&refused, Err(Error::AlertTooLarge { key, bytes: 8_000, .. }) if key == "large");
    assert!(named, "{refused:?}");
    assert_eq!(publisher.last_marker()?, None, "nothing is out");
    assert_eq!(publisher.publish(&small, "job/i/c/1", 1)?, Outcome::Published);
    assert_eq!(publisher.last_marker()?.as_deref(), Some("job/i/c/1"));
    let (blocks, _) = read_to_end(&mut open_bounded(bootstrap_servers, &topic)?, Position::Earliest)?;
    let seen: Vec<String> = blocks.iter().flat_map(payloads).collect();
    let expected: Vec<String> = (0..50).map(|n| format!("small-{n}")).collect();
    assert_eq!(seen, expected, "each once, in order");
    Ok(())
}

fn payloads(block: &RecordBlock) -> Vec<String> {
    let text = |k| String::from_utf8_lossy(block.payload(k)).trim_end().to_owned();
    (0..block.len()).map(text).collect()
}

/// An alert whose payload is its key, filled up with blanks.
fn alert(key: &str, bytes: usize) -> AlertMessage {
    let headers = vec![("ce_id".to_owned(), format!("{key}:1")), ("ce_specversion".to_owned(), "1.0".to_owned())];
    AlertMessage { key: key.to_owned(), headers, payload: format!("{key:<bytes$}").into_bytes() }
}

fn make_topic(bootstrap_servers: &str, name: &str, partitions: i32) -> Result<String> {
    make_topic_with(bootstrap_servers, name, partitions, Vec::new())
}

fn make_topic_with(
    bootstrap_servers: &str,
    name: &str,
    partitions: i32,
    settings: Vec<(String, String)>,
) -> Result<String> {
    let topic = TopicSpec { name: name.to_owned(), partitions, replication: 1, settings };
    let created = create_topics(bootstrap_servers, &Properties::new(), std::slice::from_ref(&topic), PATIENCE)?;
    assert_eq!(created, [name.to_owned()], "the prefix must be new");
    let again = create_topics(bootstrap_servers, &Properties::new(), &[topic], PATIENCE)?;
    assert!(again.is_empty(), "an existing topic is left as it is");
    Ok(name.to_owned())
}

fn open_bounded(bootstrap_servers: &str, topic: &str) -> Result<KafkaSource> {
    let mut config = KafkaSourceConfig::new(bootstrap_servers, format!("{topic}.contract"), vec![topic.to_owned()]);
    config.until_end = true;
    KafkaSource::connect(config, Arc::new(|| 0))
}

/// Reads until every assigned lane has ended or is lost; returns the blocks and the lost lanes.
fn read_to_end(source: &mut KafkaSource, position: Position) -> Result<(Vec<RecordBlock>, Vec<LaneId>)> {
    let (mut blocks, mut lost) = (Vec::new(), Vec::new());
    let (mut assigned, mut ended) = (0, 0);
    let deadline = Instant::now() + PATIENCE;
    while assigned == 0 || ended + lost.len() < assigned {
        assert!(Instant::now() < deadline, "{ended} of {assigned} lanes have ended");
        for event in source.poll(Duration::from_millis(100))? {
            match event {
                SourceEvent::Assigned(lanes) => {
                    assigned += lanes.len();
                    lanes.iter().try_for_each(|lane| source.start(lane, position, None))?;
                }
                SourceEvent::Records(block) => blocks.push(block),
                SourceEvent::Ended { .. } => ended += 1,
                SourceEvent::OffsetLost { lane, .. } => lost.push(lane),
                SourceEvent::Revoked(lanes) => panic!("nobody else is in the group, but {lanes:?} were revoked"),
                SourceEvent::CaughtUp { .. } | SourceEvent::Log { .. } | SourceEvent::Trouble(_) => {}
                SourceEvent::Columns { .. } | SourceEvent::Header { .. } | SourceEvent::Oversized { .. } => {
                    panic!("a Kafka source has no columns, headers or limits")
                }
            }
        }
    }
    Ok((blocks, lost))
}
