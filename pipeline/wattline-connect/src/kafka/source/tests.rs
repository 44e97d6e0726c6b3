//! The source against the embedded broker: real sockets and group protocol, no cluster.

use std::collections::BTreeMap;
use std::time::Instant;

use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::embedded::{EmbeddedBroker, Progress};
use crate::kafka::admin::{KeyedMessage, Producer};

/// Longest a test waits for something that must come.
const PATIENCE: Duration = Duration::from_secs(30);

fn broker(topics: &[(&str, i32)]) -> EmbeddedBroker {
    let broker = EmbeddedBroker::start().expect("embedded broker");
    for (topic, partitions) in topics {
        broker.create_topic(topic, *partitions).expect("topic");
    }
    broker
}

fn produce(broker: &EmbeddedBroker, topic: &str, texts: impl IntoIterator<Item = String>) {
    let mut producer = Producer::connect(&broker.bootstrap_servers(), &Properties::new()).expect("producer");
    for text in texts {
        let message = KeyedMessage { topic, key: text.as_bytes(), payload: text.as_bytes(), timestamp_ms: Some(1_000) };
        producer.send(&message).expect("sent");
    }
    producer.flush(PATIENCE).expect("delivered");
}

fn config(broker: &EmbeddedBroker, topics: &[&str]) -> KafkaSourceConfig {
    let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
    KafkaSourceConfig::new(broker.bootstrap_servers(), "wattline-test", topics)
}

fn connect(config: KafkaSourceConfig) -> KafkaSource {
    KafkaSource::connect(config, Arc::new(|| 42)).expect("connected")
}

/// Polls until `done` says so, starting each assigned lane where `position` says.
fn drive(
    source: &mut KafkaSource,
    position: impl Fn(&LaneId) -> Option<Position>,
    mut done: impl FnMut(&KafkaSource, &SourceEvent) -> bool,
) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "nothing more came: {source:?}");
        for event in source.poll(Duration::from_millis(50)).expect("polled") {
            if let SourceEvent::Assigned(lanes) = &event {
                for lane in lanes {
                    if let Some(position) = position(lane) {
                        source.start(lane, position, None).expect("assigned");
                    }
                }
            }
            if done(source, &event) {
                return;
            }
        }
    }
}

type Read = BTreeMap<LaneId, Vec<i64>>;

fn collect(event: &SourceEvent, read: &mut Read) {
    if let SourceEvent::Records(block) = event {
        assert_eq!(block.fetched_at_ms, 42);
        read.entry(block.lane.clone()).or_default().extend(&block.offsets);
    }
}

fn count(read: &Read) -> usize {
    read.values().map(Vec::len).sum()
}

/// Reads all lanes to their ends.
fn read_bounded(source: &mut KafkaSource, lanes: usize, position: Position) -> Read {
    let (mut read, mut ended) = (Read::new(), 0);
    drive(
        source,
        |_| Some(position),
        |_, event| {
            collect(event, &mut read);
            ended += usize::from(matches!(event, SourceEvent::Ended { .. }));
            ended == lanes
        },
    );
    read
}

#[test]
fn a_bounded_run_reads_every_record_of_every_lane_once_and_in_order() {
    let broker = broker(&[("a", 3), ("b", 2), ("empty", 1)]);
    produce(&broker, "a", (0..5000).map(|n| format!("a{n}")));
    produce(&broker, "b", (0..700).map(|n| format!("b{n}")));
    let mut settings = config(&broker, &["a", "b", "empty"]);
    settings.until_end = true;
    settings.batch_records_max = 500;
    let mut source = connect(settings);
    assert_eq!(source.partitions(), [("a".to_owned(), 3), ("b".to_owned(), 2), ("empty".to_owned(), 1)]);
    let read = read_bounded(&mut source, 6, Position::Earliest);
    assert_eq!(count(&read), 5700);
    for offsets in read.values() {
        let all: Vec<i64> = (0..).take(offsets.len()).collect();
        assert_eq!(*offsets, all);
    }
    assert!(source.poll(Duration::from_millis(100)).expect("polled").is_empty(), "an ended source is silent");
}

#[test]
fn nothing_flows_before_a_lane_is_started_and_lag_is_known_afterwards() {
    let broker = broker(&[("a", 1)]);
    produce(&broker, "a", (0..10).map(|n| n.to_string()));
    let mut source = connect(config(&broker, &["a"]));
    let lane = LaneId::new("a", 0);
    drive(&mut source, |_| None, |_, event| matches!(event, SourceEvent::Assigned(_)));
    for _ in 0..5 {
        assert!(source.poll(Duration::from_millis(50)).expect("polled").is_empty());
    }
    source.start(&lane, Position::Offset(4), None).expect("assigned");
    let mut read = Read::new();
    drive(
        &mut source,
        |_| None,
        |source, event| {
            collect(event, &mut read);
            if let SourceEvent::CaughtUp { next_offset, .. } = event {
                assert_eq!(*next_offset, 10);
                assert_eq!(source.lag(&lane), Some(0));
                assert_eq!(source.high_watermarks(), [(lane.clone(), 10)]);
                return true;
            }
            false
        },
    );
    assert_eq!(read[&lane], (4..10).collect::<Vec<i64>>());
    produce(&broker, "a", ["again".to_owned()]);
    drive(
        &mut source,
        |_| None,
        |_, event| {
            collect(event, &mut read);
            count(&read) == 7
        },
    );
    assert!(source.start(&LaneId::new("other", 0), Position::Earliest, None).is_err());
}

#[test]
fn a_lane_started_later_neither_loses_nor_repeats_records_of_the_others() {
    let broker = broker(&[("a", 2)]);
    produce(&broker, "a", (0..4000).map(|n| n.to_string()));
    for strategy in ["range", "cooperative-sticky"] {
        let mut settings = config(&broker, &["a"]);
        settings.group_id = format!("late-{strategy}");
        settings.until_end = true;
        settings.batch_records_max = 100;
        settings.properties.insert("partition.assignment.strategy".to_owned(), strategy.to_owned());
        let mut source = connect(settings);
        let (mut read, mut ended, late) = (Read::new(), 0, LaneId::new("a", 1));
        let deadline = Instant::now() + PATIENCE;
        let mut asked = false;
        while ended < 2 {
            assert!(Instant::now() < deadline, "{strategy}: {source:?}");
            if !asked && count(&read) >= 300 {
                source.start(&late, Position::Earliest, None).expect("assigned");
                asked = true;
            }
            for event in source.poll(Duration::from_millis(50)).expect("polled") {
                if matches!(event, SourceEvent::Assigned(_)) {
                    source.start(&LaneId::new("a", 0), Position::Earliest, None).expect("assigned");
                }
                collect(&event, &mut read);
                ended += usize::from(matches!(event, SourceEvent::Ended { .. }));
            }
        }
        assert_eq!(count(&read), 4000, "{strategy}");
        for offsets in read.values() {
            let all: Vec<i64> = (0..).take(offsets.len()).collect();
            assert_eq!(*offsets, all, "{strategy}");
        }
    }
}

#[test]
fn a_position_that_the_log_does_not_have_is_reported_and_never_replaced() {
    let broker = broker(&[("a", 1)]);
    produce(&broker, "a", (0..10).map(|n| n.to_string()));
    let mut source = connect(config(&broker, &["a"]));
    drive(
        &mut source,
        |_| Some(Position::Offset(99)),
        |_, event| match event {
            SourceEvent::OffsetLost { wanted, first, end, is_another, .. } => {
                assert_eq!((*wanted, *first, *end, *is_another), (99, 0, 10, false));
                true
            }
            SourceEvent::Records(block) => panic!("records from {:?}", block.offsets.first()),
            _ => false,
        },
    );
    source.start(&LaneId::new("a", 0), Position::Offset(9), None).expect("still assigned");
    let mut read = Read::new();
    drive(
        &mut source,
        |_| None,
        |_, event| {
            collect(event, &mut read);
            count(&read) == 1
        },
    );
}

#[test]
fn an_offset_lost_in_mid_run_is_located_anew() {
    let broker = broker(&[("a", 1)]);
    produce(&broker, "a", (0..10).map(|n| n.to_string()));
    let mut source = connect(config(&broker, &["a"]));
    drive(&mut source, |_| Some(Position::Earliest), |_, event| matches!(event, SourceEvent::CaughtUp { .. }));
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
    broker.cluster().expect("cluster").request_errors(RDKafkaApiKey::Fetch, &[error]);
    produce(&broker, "a", ["after".to_owned()]);
    let mut read = Read::new();
    drive(
        &mut source,
        |_| None,
        |_, event| {
            collect(event, &mut read);
            count(&read) == 1
        },
    );
    assert_eq!(read[&LaneId::new("a", 0)], [10]);
}

#[test]
fn a_held_source_is_silent_and_goes_on_where_it_stopped() {
    let broker = broker(&[("a", 1)]);
    produce(&broker, "a", (0..1000).map(|n| n.to_string()));
    let mut settings = config(&broker, &["a"]);
    settings.batch_records_max = 100;
    let mut source = connect(settings);
    let (mut read, lane) = (Read::new(), LaneId::new("a", 0));
    drive(
        &mut source,
        |_| Some(Position::Earliest),
        |_, event| {
            collect(event, &mut read);
            count(&read) >= 100
        },
    );
    source.hold(true);
    for _ in 0..5 {
        assert!(source.poll(Duration::from_millis(50)).expect("polled").is_empty());
    }
    source.hold(false);
    drive(
        &mut source,
        |_| None,
        |_, event| {
            collect(event, &mut read);
            count(&read) >= 1000
        },
    );
    assert_eq!(read[&lane], (0..1000).collect::<Vec<i64>>());
}

#[test]
fn a_second_member_takes_lanes_over_and_gives_them_back() {
    let broker = broker(&[("a", 2)]);
    let mut first = connect(config(&broker, &["a"]));
    drive(
        &mut first,
        |_| Some(Position::Earliest),
        |_, event| matches!(event, SourceEvent::Assigned(lanes) if lanes.len() == 2),
    );
    let mut second = connect(config(&broker, &["a"]));
    let deadline = Instant::now() + PATIENCE;
    let (mut revoked, mut shared) = (false, false);
    while !shared {
        assert!(Instant::now() < deadline, "no rebalance: {first:?} {second:?}");
        for event in first.poll(Duration::from_millis(20)).expect("polled") {
            revoked |= matches!(event, SourceEvent::Revoked(_));
        }
        for event in second.poll(Duration::from_millis(20)).expect("polled") {
            shared |= matches!(event, SourceEvent::Assigned(lanes) if lanes.len() == 1);
        }
    }
    assert!(revoked, "the first member was told to let go");
    drop(second);
    drive(&mut first, |_| None, |_, event| matches!(event, SourceEvent::Assigned(lanes) if lanes.len() == 2));
}

#[test]
fn the_slot_names_the_member_unless_the_user_does() {
    let mut settings = KafkaSourceConfig::new("localhost:1", "g", vec!["a".to_owned()]);
    assert_eq!(settings.instance_id(), None);
    settings.member = Some(SlotMember { job: "billing".to_owned(), slot: "0".to_owned() });
    assert_eq!(settings.instance_id().as_deref(), Some("wattline-billing-0"));
    settings.properties.insert(INSTANCE_ID.to_owned(), "mine".to_owned());
    assert_eq!(settings.instance_id().as_deref(), Some("mine"));
    settings.properties.insert(INSTANCE_ID.to_owned(), String::new());
    assert_eq!(settings.instance_id(), None, "an empty name makes no static member");
}

#[test]
fn the_newer_group_protocol_is_for_slots_that_join_no_group_here() {
    let broker = broker(&[("a", 2), ("inbox", 2)]);
    let mut settings = config(&broker, &["a"]);
    settings.properties.insert(GROUP_PROTOCOL.to_owned(), "consumer".to_owned());
    let refused = KafkaSource::connect(settings.clone(), Arc::new(|| 42)).expect_err("a slot that is alone");
    assert!(matches!(&refused, Error::ReservedProperty { name, .. } if name == GROUP_PROTOCOL), "{refused}");
    settings.share = Some(Share { place: Place { slot: 0, of: 2 }, inbox: LaneId::new("inbox", 0) });
    let mut source = connect(settings);
    drive(&mut source, |_| Some(Position::Earliest), |_, event| matches!(event, SourceEvent::CaughtUp { .. }));
}

#[test]
fn a_member_that_was_replaced_says_by_whom_and_what_to_do() {
    let broker = broker(&[("a", 2)]);
    let mut settings = config(&broker, &["a"]);
    settings.member = Some(SlotMember { job: "billing".to_owned(), slot: "0".to_owned() });
    settings.properties.insert("heartbeat.interval.ms".to_owned(), "100".to_owned());
    let mut source = connect(settings);
    drive(&mut source, |_| Some(Position::Earliest), |_, event| matches!(event, SourceEvent::CaughtUp { .. }));
    let fenced = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID];
    broker.cluster().expect("cluster").request_errors(RDKafkaApiKey::Heartbeat, &fenced);
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        assert!(Instant::now() < deadline, "it goes on: {source:?}");
        if let Err(error) = source.poll(Duration::from_millis(50)) {
            break error;
        }
    };
    assert!(matches!(error, Error::MemberFenced { .. }), "{error}");
    let said = error.to_string();
    for part in
        ["another process", "slot `0` of job `billing`", "group `wattline-test`", "`wattline-billing-0`", "stop one"]
    {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn lanes_of_other_topics_or_too_few_are_those_of_an_earlier_process() {
    let broker = broker(&[("a", 2), ("b", 1)]);
    let source = connect(config(&broker, &["a", "b"]));
    let lanes = |named: &[(&str, i32)]| -> Vec<LaneId> {
        named.iter().map(|(topic, partition)| LaneId::new(*topic, *partition)).collect()
    };
    for (given, outdated) in [
        (lanes(&[("a", 0), ("a", 1), ("b", 0)]), false),
        (lanes(&[("a", 0), ("a", 1), ("b", 0), ("b", 1)]), false),
        (lanes(&[("a", 0), ("a", 1)]), true),
        (lanes(&[("a", 0), ("b", 0), ("b", 1)]), true),
        (lanes(&[("a", 0), ("a", 1), ("b", 0), ("c", 0)]), true),
    ] {
        assert_eq!(source.is_outdated(&given), outdated, "{given:?}");
    }
}

#[test]
fn offsets_are_committed_for_the_tools_to_see() {
    let broker = broker(&[("a", 1)]);
    produce(&broker, "a", (0..10).map(|n| n.to_string()));
    let mut source = connect(config(&broker, &["a"]));
    let lane = LaneId::new("a", 0);
    drive(&mut source, |_| Some(Position::Earliest), |_, event| matches!(event, SourceEvent::CaughtUp { .. }));
    source.commit(&[(lane.clone(), 7)], "job/i/c/1").expect("asked");
    let deadline = Instant::now() + PATIENCE;
    loop {
        source.poll(Duration::from_millis(20)).expect("polled");
        let committed = source.committed(std::slice::from_ref(&lane)).expect("answered");
        if committed == [(lane.clone(), 7, "job/i/c/1".to_owned())] {
            return;
        }
        assert!(Instant::now() < deadline, "{committed:?}");
    }
}

#[test]
fn a_broker_that_goes_away_is_trouble_and_reading_goes_on_when_it_is_back() {
    let broker = broker(&[("a", 1)]);
    let mut source = connect(config(&broker, &["a"]));
    drive(&mut source, |_| Some(Position::Earliest), |_, event| matches!(event, SourceEvent::CaughtUp { .. }));
    broker.cluster().expect("cluster").broker_down(-1).expect("down");
    drive(&mut source, |_| None, |_, event| matches!(event, SourceEvent::Trouble(_)));
    broker.cluster().expect("cluster").broker_up(-1).expect("up");
    produce(&broker, "a", ["back".to_owned()]);
    let mut read = Read::new();
    drive(
        &mut source,
        |_| None,
        |_, event| {
            collect(event, &mut read);
            count(&read) == 1
        },
    );
}

#[test]
fn first_contact_says_what_is_wrong() {
    let broker = broker(&[("a", 1)]);
    let refuse = |settings: KafkaSourceConfig| {
        KafkaSource::connect(settings, Arc::new(|| 42)).map(|_| ()).expect_err("must be refused").to_string()
    };
    let error = refuse(config(&broker, &["a", "nowhere"]));
    assert!(error.contains("topic `nowhere` does not exist"), "{error}");
    let mut unreachable = KafkaSourceConfig::new("127.0.0.1:1", "g", vec!["a".to_owned()]);
    unreachable.connect_timeout = Duration::from_millis(500);
    let error = refuse(unreachable);
    assert!(error.contains("no broker answered at `127.0.0.1:1` within 0.5 s") && error.contains("refused"), "{error}");
    let mut wrong = config(&broker, &["a"]);
    wrong.properties.insert("fetch.max.bites".to_owned(), "1".to_owned());
    let error = refuse(wrong);
    assert!(error.contains("`fetch.max.bites`") && error.contains("No such configuration property"), "{error}");
    let mut ours = config(&broker, &["a"]);
    ours.properties.insert("auto.offset.reset".to_owned(), "earliest".to_owned());
    let error = refuse(ours);
    assert!(error.contains("`auto.offset.reset` cannot be set"), "{error}");
}

#[test]
fn the_feeder_never_overruns_what_the_broker_keeps() {
    let broker = broker(&[("a", 2)]);
    let progress = Progress::new();
    let mut feeder = broker.feeder(progress.clone()).expect("feeder");
    let feeding = std::thread::Builder::new()
        .name("feeder".to_owned())
        .spawn(move || {
            let payload = vec![b'x'; 1000];
            for n in 0..20_000_u32 {
                let message = KeyedMessage { topic: "a", key: &n.to_le_bytes(), payload: &payload, timestamp_ms: None };
                assert!(feeder.send(&message).expect("fed"), "the consumer never stops in this test");
            }
            feeder.finish().expect("all delivered")
        })
        .expect("thread");
    let mut source = connect(config(&broker, &["a"]));
    let mut read = Read::new();
    drive(
        &mut source,
        |_| Some(Position::Earliest),
        |_, event| {
            assert!(!matches!(event, SourceEvent::OffsetLost { .. }), "{event:?}");
            collect(event, &mut read);
            if let SourceEvent::Records(block) = event {
                progress.processed(&block.lane, block.offsets[block.len() - 1] + 1);
            }
            count(&read) == 20_000
        },
    );
    assert_eq!(feeding.join().expect("feeder thread"), 20_000);
    for offsets in read.values() {
        assert!(offsets.iter().copied().eq((0..).take(offsets.len())));
    }
}
