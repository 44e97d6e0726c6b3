//! The yardstick: a bare librdkafka consumer that reads the topic to its end and looks at nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka_broker::TestBroker;

const POLL_LIMIT: Duration = Duration::from_secs(30);

/// Seconds from the assignment to the end of the last partition.
pub(crate) fn consume_all(broker: &TestBroker, topic: &str, partitions: i32, records: u64) -> Result<f64> {
    let consumer: BaseConsumer = broker
        .client_config()
        .set("group.id", "bench-raw")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .create()?;
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    let started = Instant::now();
    consumer.assign(&assignment)?;
    let mut open: BTreeSet<i32> = (0..partitions).collect();
    let mut seen = 0;
    while !open.is_empty() {
        match consumer.poll(POLL_LIMIT) {
            None => anyhow::bail!("`{topic}` is silent after {seen} of {records} records"),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                open.remove(&partition);
            }
            Some(message) => {
                message?;
                seen += 1;
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    ensure!(seen == records, "{records} records were produced, {seen} are in `{topic}`");
    Ok(seconds)
}
