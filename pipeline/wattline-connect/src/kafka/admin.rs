//! Topics and test data through the ordinary Kafka protocol: for the demo, benches and tests.
//!
//! wattline itself creates no topic while running: how many partitions and replicas a topic has is the owner's decision.

use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::context::ProducerReports;
use super::{Properties, client_config, refused_config};
use crate::error::{Error, Result};

/// Messages sent between two servings of delivery reports.
const SERVE_EVERY: u64 = 1024;

/// A topic to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Number of replicas.
    pub replication: i32,
    /// Topic settings such as `retention.ms`.
    pub settings: Vec<(String, String)>,
}

/// Creates the topics that do not exist yet and returns their names; existing ones are left as they are.
///
/// # Errors
/// [`Error::TopicCreation`] for the first topic the broker refuses, [`Error::Kafka`] if it does not answer.
pub fn create_topics(
    bootstrap_servers: &str,
    properties: &Properties,
    topics: &[TopicSpec],
    timeout: Duration,
) -> Result<Vec<String>> {
    let admin: AdminClient<DefaultClientContext> =
        client_config(bootstrap_servers, &[("client.id", "wattline")], properties, &[])?
            .create()
            .map_err(refused_config)?;
    let wanted: Vec<NewTopic<'_>> = topics
        .iter()
        .map(|topic| {
            let new = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(topic.replication));
            topic.settings.iter().fold(new, |new, (name, value)| new.set(name, value))
        })
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(timeout)).request_timeout(Some(timeout));
    let answers = futures::executor::block_on(admin.create_topics(&wanted, &options))
        .map_err(|source| Error::Kafka { doing: format!("creating topics at `{bootstrap_servers}`"), source })?;
    let mut created = Vec::new();
    for answer in answers {
        match answer {
            Ok(topic) => created.push(topic),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(Error::TopicCreation { topic, code }),
        }
    }
    Ok(created)
}

/// One message of test data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyedMessage<'a> {
    /// Where it goes.
    pub topic: &'a str,
    /// Its key, which chooses the partition.
    pub key: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
    /// Its Kafka timestamp in milliseconds since the epoch; now if absent.
    pub timestamp_ms: Option<i64>,
}

/// A producer for development tools: acknowledged by all replicas, but without transactions.
pub struct Producer {
    inner: BaseProducer<ProducerReports>,
    bootstrap_servers: String,
    sent: u64,
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("bootstrap_servers", &self.bootstrap_servers).finish_non_exhaustive()
    }
}

impl Producer {
    /// Opens a producer; no broker is contacted yet.
    ///
    /// # Errors
    /// [`Error::Property`] or [`Error::ReservedProperty`].
    pub fn connect(bootstrap_servers: &str, properties: &Properties) -> Result<Self> {
        let defaults = [
            ("client.id", "wattline"),
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("linger.ms", "10"),
            ("partitioner", "murmur2_random"),
        ];
        let inner = client_config(bootstrap_servers, &defaults, properties, &[])?
            .create_with_context(ProducerReports::default())
            .map_err(refused_config)?;
        Ok(Self { inner, bootstrap_servers: bootstrap_servers.to_owned(), sent: 0 })
    }

    /// Hands over one message; waits while the client's queue is full.
    ///
    /// # Errors
    /// [`Error::Kafka`] if this message is refused or an earlier one could not be delivered.
    pub fn send(&mut self, message: &KeyedMessage<'_>) -> Result<()> {
        self.send_to(message, None)
    }

    /// The same with a given partition.
    pub(crate) fn send_to(&mut self, message: &KeyedMessage<'_>, partition: Option<i32>) -> Result<()> {
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(message.topic).key(message.key).payload(message.payload);
        record.partition = partition;
        record.timestamp = message.timestamp_ms;
        loop {
            match self.inner.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.inner.poll(Duration::from_millis(5));
                    self.check(message.topic)?;
                }
                Err((source, _)) => {
                    return Err(Error::Kafka { doing: format!("producing to `{}`", message.topic), source });
                }
            }
        }
        self.sent += 1;
        if self.sent.is_multiple_of(SERVE_EVERY) {
            self.inner.poll(Duration::ZERO);
            self.check(message.topic)?;
        }
        Ok(())
    }

    /// Sends all and waits for their acknowledgement; returns how many there were.
    ///
    /// # Errors
    /// As [`Producer::send`] and [`Producer::flush`].
    pub fn send_all<'a>(&mut self, messages: impl IntoIterator<Item = KeyedMessage<'a>>) -> Result<u64> {
        let mut count = 0;
        for message in messages {
            self.send(&message)?;
            count += 1;
        }
        self.flush(Duration::from_secs(60))?;
        Ok(count)
    }

    /// Waits until everything handed over is acknowledged.
    ///
    /// # Errors
    /// [`Error::Kafka`] if time runs out or a message could not be delivered.
    pub fn flush(&mut self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        while self.inner.in_flight_count() > 0 {
            if Instant::now() >= deadline {
                let source = KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut);
                return Err(Error::Kafka {
                    doing: format!("waiting for `{}` to acknowledge", self.bootstrap_servers),
                    source,
                });
            }
            self.inner.poll(Duration::from_millis(2));
        }
        self.check("a topic")
    }

    /// Serves delivery reports without waiting.
    pub(crate) fn serve(&self) {
        self.inner.poll(Duration::ZERO);
    }

    fn check(&self, topic: &str) -> Result<()> {
        match self.inner.client().context().take_failed_delivery() {
            Some(failed) => Err(Error::Kafka { doing: format!("delivering to `{topic}`"), source: failed.error }),
            None => Ok(()),
        }
    }
}

/// The partition that Kafka's own clients choose for a key: murmur2, sign bit cleared, modulo the count.
///
/// # Panics
/// If `partitions` is not positive.
pub fn partition_of_key(key: &[u8], partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has at least one partition");
    let positive = i32::try_from(murmur2(key) & 0x7fff_ffff).expect("31 bits fit");
    positive % partitions
}

/// MurmurHash2 with the seed of Kafka's clients.
fn murmur2(data: &[u8]) -> u32 {
    const FACTOR: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = 0x9747_b28c_u32 ^ length;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut mixed = u32::from_le_bytes(*word).wrapping_mul(FACTOR);
        mixed ^= mixed >> 24;
        hash = hash.wrapping_mul(FACTOR) ^ mixed.wrapping_mul(FACTOR);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(FACTOR);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(FACTOR);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_is_kafkas() {
        for (text, expected) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), expected, "{text}");
        }
    }
}
