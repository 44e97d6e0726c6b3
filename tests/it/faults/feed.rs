//! Records to partitions that the test names, and the visits of the files as such: partition k has what file k has, line by line, so that a
//! job over either says the same of them.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::subject::{FILES, LINES, text_of};
use crate::kafka_broker::TestBroker;

const FLUSH_LIMIT: Duration = Duration::from_secs(60);

/// Writes to a topic of its own, in order.
pub(super) struct Feed {
    producer: BaseProducer,
    topic: String,
}

impl Feed {
    /// Makes the topic.
    pub(super) fn to(broker: &TestBroker, topic: &str, partitions: u32) -> Result<Self> {
        broker.create_topic(topic, i32::try_from(partitions)?, &[])?;
        let mut config = broker.client_config();
        config.set("enable.idempotence", "true").set("compression.type", "lz4").set("linger.ms", "5");
        Ok(Self { producer: config.create()?, topic: topic.to_owned() })
    }

    /// A record with a payload, or without, and perhaps with a header.
    pub(super) fn send(&self, partition: u32, payload: Option<&[u8]>, header: Option<&[u8]>) -> Result<()> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic).partition(i32::try_from(partition)?);
        record.payload = payload;
        record.headers = header.map(|value| OwnedHeaders::new().insert(Header { key: "trace", value: Some(value) }));
        loop {
            match self.producer.send(record) {
                Ok(()) => {
                    self.producer.poll(Duration::ZERO);
                    return Ok(());
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error).with_context(|| format!("a record to `{}`", self.topic)),
            }
        }
    }

    /// Waits until the broker has all of them.
    pub(super) fn flush(&self) -> Result<()> {
        self.producer.flush(FLUSH_LIMIT).with_context(|| format!("not all records of `{}` are there", self.topic))
    }
}

/// Makes a topic with the visits.
pub(super) fn visits(broker: &TestBroker, topic: &str) -> Result<()> {
    let feed = Feed::to(broker, topic, FILES)?;
    for (file, line) in (0..FILES).flat_map(|file| (0..LINES).map(move |line| (file, line))) {
        feed.send(file, Some(text_of(file, line).trim_end().as_bytes()), None)?;
    }
    feed.flush()
}
