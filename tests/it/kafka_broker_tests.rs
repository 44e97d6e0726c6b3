//! What the test broker must do for the tests that lean on it: keep records in order, hide aborted ones, carry offset metadata
//! in a transaction, and come back with every acknowledged record after a kill. And what source and publisher of wattline must do
//! with a real one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use wattline_connect::kafka::contract;

use crate::kafka_broker::TestBroker;

const LIMIT: Duration = Duration::from_secs(30);

/// Sends `count` records named `<prefix><number>`, round robin over the partitions, and waits for all acknowledgements.
fn produce(producer: &BaseProducer, topic: &str, partitions: i32, prefix: &str, count: i32) -> Result<()> {
    for number in 0..count {
        let payload = format!("{prefix}{number}");
        let record: BaseRecord<'_, str, str> = BaseRecord::to(topic).partition(number % partitions).payload(&payload);
        producer.send(record).map_err(|(error, _)| error).context("cannot enqueue")?;
    }
    producer.flush(LIMIT).context("not all records were acknowledged")
}

/// Reads `count` records from the start of all partitions with `isolation`; fails if fewer arrive.
fn consume(
    broker: &TestBroker,
    topic: &str,
    partitions: i32,
    isolation: &str,
    count: usize,
) -> Result<Vec<(i32, i64, String)>> {
    let consumer: BaseConsumer =
        broker.client_config().set("group.id", "unused").set("isolation.level", isolation).create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let start = Instant::now();
    let mut rows = Vec::with_capacity(count);
    while rows.len() < count {
        ensure!(start.elapsed() < LIMIT, "{} of {count} records of `{topic}` after {LIMIT:?}", rows.len());
        if let Some(message) = consumer.poll(Duration::from_millis(200)) {
            let message = message?;
            let payload = message.payload_view::<str>().context("no payload")??;
            rows.push((message.partition(), message.offset(), payload.to_owned()));
        }
    }
    if let Some(message) = consumer.poll(Duration::from_millis(500)) {
        bail!("a record too many: {:?}", message?.payload_view::<str>());
    }
    Ok(rows)
}

#[test]
fn records_keep_their_partition_and_order() -> Result<()> {
    let broker = TestBroker::shared();
    broker.create_topic("smoke_order", 4, &[])?;
    let producer: BaseProducer = broker.client_config().set("enable.idempotence", "true").create()?;
    produce(&producer, "smoke_order", 4, "r", 1_000)?;
    let mut rows = consume(broker, "smoke_order", 4, "read_committed", 1_000)?;
    rows.sort();
    for (partition, offset, payload) in rows {
        assert_eq!(payload, format!("r{}", offset * 4 + i64::from(partition)));
    }
    Ok(())
}

#[test]
fn a_transaction_carries_offsets_with_metadata_and_hides_what_is_aborted() -> Result<()> {
    let broker = TestBroker::shared();
    broker.create_topic("smoke_transaction", 1, &[])?;
    let group: BaseConsumer = broker.client_config().set("group.id", "smoke_group").create()?;
    let producer: BaseProducer = broker.client_config().set("transactional.id", "smoke").create()?;
    producer.init_transactions(LIMIT)?;

    producer.begin_transaction()?;
    produce(&producer, "smoke_transaction", 1, "committed", 10)?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition("smoke_transaction", 0).set_metadata("job/1/chain/7");
    offsets.set_partition_offset("smoke_transaction", 0, Offset::Offset(42))?;
    let metadata = group.group_metadata().context("no group metadata")?;
    producer.send_offsets_to_transaction(&offsets, &metadata, LIMIT)?;
    producer.commit_transaction(LIMIT)?;

    producer.begin_transaction()?;
    produce(&producer, "smoke_transaction", 1, "aborted", 10)?;
    producer.abort_transaction(LIMIT)?;

    let seen = consume(broker, "smoke_transaction", 1, "read_committed", 10)?;
    ensure!(
        seen.iter().all(|(_, _, payload)| payload.starts_with("committed")),
        "an aborted record was seen: {seen:?}"
    );
    consume(broker, "smoke_transaction", 1, "read_uncommitted", 20)?;

    let committed = group.committed_offsets(offsets, LIMIT)?;
    let entry = committed.find_partition("smoke_transaction", 0).context("no committed offset")?;
    assert_eq!((entry.offset(), entry.metadata()), (Offset::Offset(42), "job/1/chain/7"));
    Ok(())
}

#[test]
fn the_source_reads_each_record_once_and_says_what_is_lost() -> Result<()> {
    Ok(contract::source_contract(&TestBroker::shared().bootstrap(), "contract")?)
}

#[test]
fn a_slot_comes_back_to_its_lanes_at_once() -> Result<()> {
    Ok(contract::member_contract(&TestBroker::shared().bootstrap(), "contract-member")?)
}

#[test]
fn alerts_are_published_all_or_none_and_by_one_publisher() -> Result<()> {
    Ok(contract::alerts_contract(&TestBroker::shared().bootstrap(), "contract")?)
}

#[test]
fn an_alert_that_the_topic_finds_too_large_is_named() -> Result<()> {
    Ok(contract::large_alerts_contract(&TestBroker::shared().bootstrap(), "contract")?)
}

#[test]
fn acknowledged_records_outlive_a_killed_broker() -> Result<()> {
    let mut broker = TestBroker::start()?;
    let address = broker.bootstrap();
    broker.create_topic("smoke_kill", 2, &[])?;
    let producer: BaseProducer = broker.client_config().set("acks", "all").create()?;
    produce(&producer, "smoke_kill", 2, "before", 500)?;
    broker.kill9()?;
    broker.restart()?;
    assert_eq!(broker.bootstrap(), address);
    produce(&producer, "smoke_kill", 2, "after", 500)?;
    consume(&broker, "smoke_kill", 2, "read_committed", 1_000)?;
    broker.stop()
}
