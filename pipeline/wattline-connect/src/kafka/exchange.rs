//! How the slots of a job reach each other: a topic with one partition for each slot, its inbox.
//!
//! A message is sent until the broker has it on all replicas. After a failure the caller sends the whole of its messages again, so
//! one may be there twice, and never in another order than before: the receiver knows by its numbers what it has. Nobody has
//! to be fenced off, as whoever sends something late sends what was sent before.

use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord};

use super::context::{ProducerReports, SourceContext};
use super::delivery::{await_delivered, enqueue};
use super::topics::Cluster;
use super::{Properties, Reserved, client_config, is_of_member, refused_config};
use crate::error::{Error, Result};

/// Largest message: a row that is larger by itself cannot be told.
const MESSAGE_BYTES_MAX: &str = "16000000";
/// How long messages wait for a slot that nobody runs, milliseconds: a week.
const RETENTION_MS: &str = "604800000";
/// The broker as a whole decides how many replicas a topic has.
const REPLICAS_OF_BROKER: i32 = -1;

/// Where slots reach each other.
#[derive(Debug, Clone)]
pub struct ExchangeConfig {
    /// Addresses of brokers, comma-separated.
    pub bootstrap_servers: String,
    /// Further librdkafka properties.
    pub properties: Properties,
    /// The topic.
    pub topic: String,
    /// How many slots the job has.
    pub slots: u32,
    /// How long to wait for a broker at the start.
    pub connect_timeout: Duration,
    /// How long messages may be on their way.
    pub send_timeout: Duration,
}

impl ExchangeConfig {
    fn client(&self, defaults: &[(&str, &str)], reserved: &[Reserved]) -> Result<rdkafka::ClientConfig> {
        let mut properties = self.properties.clone();
        properties.retain(|name, _| !is_of_member(name));
        client_config(&self.bootstrap_servers, defaults, &properties, reserved)
    }
}

/// Makes sure that the topic is there with a partition for each slot: creates it if it is missing.
///
/// # Errors
/// [`Error::NoBroker`], [`Error::TopicCreation`], or [`Error::SlotsChanged`] if it has another number of partitions.
pub fn ensure_topic(config: &ExchangeConfig) -> Result<()> {
    let consumer: BaseConsumer<SourceContext> =
        config.client(&[], &[])?.create_with_context(SourceContext::default()).map_err(refused_config)?;
    let cluster = Cluster::new(&config.bootstrap_servers, config.connect_timeout);
    let wanted = i32::try_from(config.slots).unwrap_or(i32::MAX);
    let found = match cluster.partition_count(&consumer, &config.topic) {
        Err(Error::TopicMissing { .. }) => {
            create_topic(config, wanted)?;
            cluster.partition_count(&consumer, &config.topic)?
        }
        found => found?,
    };
    if found != wanted {
        return Err(Error::SlotsChanged { topic: config.topic.clone(), partitions: found, slots: config.slots });
    }
    Ok(())
}

/// Whether the topic holds anything that was told; not so where it cannot be asked for, as in the moment after it was made.
pub fn has_messages(config: &ExchangeConfig) -> bool {
    let client = config.client(&[], &[]).ok();
    let consumer: Option<BaseConsumer<SourceContext>> =
        client.and_then(|client| client.create_with_context(SourceContext::default()).ok());
    let Some(consumer) = consumer else { return false };
    let slots = 0..i32::try_from(config.slots).unwrap_or(i32::MAX);
    let mut bounds = slots.map(|slot| consumer.fetch_watermarks(&config.topic, slot, config.connect_timeout));
    bounds.any(|bounds| bounds.is_ok_and(|(first, end)| end > first))
}

fn create_topic(config: &ExchangeConfig, partitions: i32) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = config.client(&[], &[])?.create().map_err(refused_config)?;
    let topic = NewTopic::new(&config.topic, partitions, TopicReplication::Fixed(REPLICAS_OF_BROKER))
        .set("cleanup.policy", "delete")
        .set("retention.ms", RETENTION_MS)
        .set("max.message.bytes", MESSAGE_BYTES_MAX);
    let options = AdminOptions::new()
        .operation_timeout(Some(config.connect_timeout))
        .request_timeout(Some(config.connect_timeout));
    let answers = futures::executor::block_on(admin.create_topics([&topic], &options)).map_err(|source| {
        Error::Kafka { doing: format!("creating topic `{}` at `{}`", config.topic, config.bootstrap_servers), source }
    })?;
    for answer in answers {
        match answer {
            // Another process was faster.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(Error::TopicCreation { topic, code }),
        }
    }
    Ok(())
}

/// Sends what a slot tells.
pub struct ExchangeSender {
    config: ExchangeConfig,
    producer: Option<BaseProducer<ProducerReports>>,
}

impl fmt::Debug for ExchangeSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExchangeSender").field("topic", &self.config.topic).finish_non_exhaustive()
    }
}

impl ExchangeSender {
    /// A sender; the client is opened with the first message.
    pub fn new(config: ExchangeConfig) -> Self {
        Self { config, producer: None }
    }

    /// Sends messages, each to its slot, and waits until the broker has all of them.
    ///
    /// # Errors
    /// [`Error::Kafka`] if one could not be delivered, or not in time: send all again.
    pub fn send<'a>(&mut self, messages: impl Iterator<Item = (u32, &'a [u8])>) -> Result<()> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.open()?,
        };
        let deadline = Instant::now() + self.config.send_timeout;
        for (slot, payload) in messages {
            self.enqueue(&producer, slot, payload, deadline)?;
        }
        await_delivered(&producer, deadline).map_err(|source| self.undelivered(source))?;
        // After a failure it is dropped with all that is on its way: what comes then must not overtake it.
        self.producer = Some(producer);
        Ok(())
    }

    fn open(&self) -> Result<BaseProducer<ProducerReports>> {
        let defaults = [
            ("client.id", "wattline"),
            ("linger.ms", "0"),
            ("compression.type", "lz4"),
            ("message.max.bytes", MESSAGE_BYTES_MAX),
        ];
        let whole = "slots rely on what they tell each other";
        let reserved = [Reserved::new("acks", "all", whole), Reserved::new("enable.idempotence", "true", whole)];
        let client = self.config.client(&defaults, &reserved)?;
        client.create_with_context(ProducerReports::default()).map_err(refused_config)
    }

    fn enqueue(
        &self,
        producer: &BaseProducer<ProducerReports>,
        slot: u32,
        payload: &[u8],
        deadline: Instant,
    ) -> Result<()> {
        let record: BaseRecord<'_, (), [u8]> =
            BaseRecord::to(&self.config.topic).partition(i32::try_from(slot).unwrap_or(i32::MAX)).payload(payload);
        enqueue(producer, record, deadline).map_err(|source| self.undelivered(source))
    }

    fn undelivered(&self, source: KafkaError) -> Error {
        Error::Kafka { doing: format!("telling the other slots by `{}`", self.config.topic), source }
    }
}
