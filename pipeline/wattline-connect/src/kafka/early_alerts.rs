//! Publishing alerts before the tick that they belong to is committed, for rules that ask for it.
//!
//! A plain idempotent producer: what the broker has acknowledged is on all replicas and visible at once. Nothing is remembered of
//! it. If a message could not be delivered, or not in time, nobody knows which of them are out: the producer is dropped with what is
//! on its way, and the caller publishes all of them again, under the ids that they have. Nobody has to be fenced off either, as
//! whoever sends something late sends what was sent before or will be.

use std::fmt;
use std::time::{Duration, Instant};

use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord};

use super::alerts::{AlertMessage, AlertPublisherConfig};
use super::context::ProducerReports;
use super::delivery::{await_delivered, enqueue};
use super::{Reserved, client_config, is_of_member, refused_config};
use crate::error::{Error, Result};

/// How long alerts may be on their way; all else of the job waits for them.
const PUBLISH_LIMIT: Duration = Duration::from_secs(2);

/// Publishes single alerts.
pub struct EarlyPublisher {
    config: AlertPublisherConfig,
    producer: Option<BaseProducer<ProducerReports>>,
}

impl fmt::Debug for EarlyPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EarlyPublisher").field("topic", &self.config.topic).finish_non_exhaustive()
    }
}

impl EarlyPublisher {
    /// A publisher to the same topic as that of the transactions; the client is opened with the first message.
    pub fn new(config: AlertPublisherConfig) -> Self {
        Self { config, producer: None }
    }

    /// Sends messages and waits until the broker has all of them, two seconds at most.
    ///
    /// # Errors
    /// [`Error::Kafka`] if one could not be delivered, or not in time: some may be out; or a refused property.
    pub fn publish(&mut self, messages: &[AlertMessage]) -> Result<()> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.open()?,
        };
        let deadline = Instant::now() + PUBLISH_LIMIT;
        for message in messages {
            self.enqueue(&producer, message, deadline)?;
        }
        await_delivered(&producer, deadline).map_err(|source| self.undelivered(source))?;
        // After a failure it is dropped with all that is on its way.
        self.producer = Some(producer);
        Ok(())
    }

    fn open(&self) -> Result<BaseProducer<ProducerReports>> {
        let reserved =
            [Reserved::new("enable.idempotence", "true", "an alert is to be there once as long as nothing fails")];
        let defaults = [
            ("client.id", "wattline"),
            ("linger.ms", "0"),
            ("compression.type", "lz4"),
            ("partitioner", "murmur2_random"),
        ];
        let mut properties = self.config.properties.clone();
        properties.retain(|name, _| !name.starts_with("transaction") && !is_of_member(name));
        let client = client_config(&self.config.bootstrap_servers, &defaults, &properties, &reserved)?;
        client.create_with_context(ProducerReports::default()).map_err(refused_config)
    }

    fn enqueue(
        &self,
        producer: &BaseProducer<ProducerReports>,
        message: &AlertMessage,
        deadline: Instant,
    ) -> Result<()> {
        let headers = message.record_headers();
        let record = BaseRecord::to(&self.config.topic).key(&message.key).payload(&message.payload).headers(headers);
        enqueue(producer, record, deadline).map_err(|source| self.undelivered(source))
    }

    fn undelivered(&self, source: KafkaError) -> Error {
        Error::Kafka { doing: format!("publishing alerts to `{}` before their tick", self.config.topic), source }
    }
}
