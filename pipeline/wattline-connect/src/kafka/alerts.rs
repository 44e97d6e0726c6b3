//! Publishing alerts: all of one tick in one Kafka transaction, with a marker that says which tick it was.
//!
//! ```text
//! publish ── begin ── messages ── marker = offset commit of group `<job>.<slot>.alerts` ── commit
//!                                    │
//! after a crash:  last_marker ◀──────┘   "job/incarnation/chain/n" is out, later ticks are not
//! ```
//! The marker rides in the transaction as a committed offset, because that is the one thing a transaction can
//! write besides messages and that can be read back by key. When the answer to a commit is lost, nobody knows
//! whether the transaction is out: the producer is dropped, and only the marker, read after a successor has made
//! the coordinator finish or roll back what was open, decides ([`Outcome::Unknown`]).
//!
//! A transaction is open only while its messages are being sent, so that readers of committed data never wait for an idle
//! publisher. The producer is opened lazily and again after every doubt.
//!
//! A broker judges the size of batches and refuses one as a whole. Then the transaction is tried again with batches of half the
//! size, and they stay at that. A message that is larger than a batch is alone in its own: if that is refused, the message is
//! meant. So the search ends after a few transactions, and batches stay about as large as the broker takes them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, PurgeConfig};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::context::{FailedDelivery, ProducerReports, SourceContext};
use super::delivery::{SERVE, enqueue};
use super::topics::Cluster;
use super::{Properties, Reserved, client_config, is_of_member, refused_config};
use crate::error::{Error, Result};

/// A rollback that takes longer is left to the broker, which does it when a new producer takes the slot over.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(1);
/// The library never puts a message into a batch that it would make larger than this, except as the first one.
const BATCH_SIZE: &str = "batch.size";
/// Size of a batch unless the properties say otherwise: the library's own.
const BATCH_BYTES: usize = 1_000_000;
/// How long the report of a refused message is waited for, once the client takes no more.
const REPORT_WAIT: Duration = Duration::from_secs(1);

/// How to publish alerts.
#[derive(Debug, Clone)]
pub struct AlertPublisherConfig {
    /// Addresses of brokers, comma-separated.
    pub bootstrap_servers: String,
    /// Further librdkafka properties.
    pub properties: Properties,
    /// Topic of the alerts.
    pub topic: String,
    /// Name of the job.
    pub job: String,
    /// Name of the process slot; two processes must not share it.
    pub slot: String,
    /// How long to wait for a broker at the start.
    pub connect_timeout: Duration,
    /// How long a transaction may take; after it the broker rolls it back.
    pub transaction_timeout: Duration,
    /// Told of each step of a transaction.
    pub on_step: Option<OnPublishStep>,
}

impl AlertPublisherConfig {
    /// Publishes to `topic` with the default limits.
    pub fn new(bootstrap_servers: impl Into<String>, topic: impl Into<String>, job: &str, slot: &str) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            properties: Properties::new(),
            topic: topic.into(),
            job: job.to_owned(),
            slot: slot.to_owned(),
            connect_timeout: Duration::from_secs(10),
            transaction_timeout: Duration::from_secs(10),
            on_step: None,
        }
    }

    fn transactional_id(&self) -> String {
        format!("wattline.{}.{}", self.job, self.slot)
    }

    fn marker_group(&self) -> String {
        format!("{}.{}.alerts", self.job, self.slot)
    }

    fn batch_bytes(&self) -> usize {
        self.properties.get(BATCH_SIZE).and_then(|bytes| bytes.parse().ok()).unwrap_or(BATCH_BYTES)
    }
}

/// How far a transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishStep {
    /// It is open.
    Begun,
    /// The broker has its messages.
    Sent,
    /// The broker has the marker too; only the commit is missing.
    Marked,
}

/// Called at each step of a transaction, by tests that have the process die there.
#[derive(Clone)]
pub struct OnPublishStep(Arc<dyn Fn(PublishStep) + Send + Sync>);

impl OnPublishStep {
    /// Calls `on_step`.
    pub fn new(on_step: impl Fn(PublishStep) + Send + Sync + 'static) -> Self {
        Self(Arc::new(on_step))
    }
}

impl fmt::Debug for OnPublishStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnPublishStep")
    }
}

/// One alert as Kafka carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertMessage {
    /// Fingerprint of the alert.
    pub key: String,
    /// Headers in their order.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub payload: Vec<u8>,
}

impl AlertMessage {
    /// What it comes to without the framing of the protocol.
    fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(key, value)| key.len() + value.len()).sum();
        self.key.len() + headers + self.payload.len()
    }

    pub(super) fn record_headers(&self) -> OwnedHeaders {
        let mut headers = OwnedHeaders::new_with_capacity(self.headers.len());
        for (key, value) in &self.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        headers
    }
}

/// What is known after a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Messages and marker are out.
    Published,
    /// Either all or nothing is out: [`AlertPublisher::last_marker`] tells which.
    Unknown,
}

/// The publisher of one process slot.
pub struct AlertPublisher {
    config: AlertPublisherConfig,
    group: ConsumerGroupMetadata,
    producer: Option<BaseProducer<ProducerReports>>,
    /// Largest batch to send, once one was refused as too large.
    batch_bytes: Option<usize>,
}

impl fmt::Debug for AlertPublisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlertPublisher").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Why a transaction did not commit.
enum Failure {
    /// It must be rolled back; nothing is out.
    Abort(Error),
    /// The broker takes a batch with this message, its largest, not at all; nothing is out.
    TooLarge { key: String, bytes: usize },
    /// The answer is missing.
    Unknown,
    /// The client is finished.
    Fatal(Error),
}

impl AlertPublisher {
    /// Checks that a broker answers and that the topic exists, and takes over the slot: an earlier publisher of the same
    /// slot is fenced, and what it had open is finished or rolled back before this returns.
    ///
    /// # Errors
    /// [`Error::NoBroker`], [`Error::TopicMissing`], [`Error::TopicForbidden`], or a refused property.
    pub fn connect(config: AlertPublisherConfig) -> Result<Self> {
        let reader = marker_reader(&config)?;
        Cluster::new(&config.bootstrap_servers, config.connect_timeout).partition_count(&reader, &config.topic)?;
        let group =
            reader.group_metadata().ok_or_else(|| Error::ClientDead { reason: "it has no group".to_owned() })?;
        let mut publisher = Self { config, group, producer: None, batch_bytes: None };
        publisher.open_producer()?;
        Ok(publisher)
    }

    /// Sends `messages` and sets the marker to tick `n`, all or nothing. A transaction blocks at most about half the
    /// transaction timeout and two seconds, so that the broker does not roll back what is still being tried. Only if a batch is
    /// refused as too large there is another one, with a deadline of its own and batches of at most half the size.
    ///
    /// # Errors
    /// [`Error::TransactionAborted`] (nothing is out, try again), [`Error::AlertTooLarge`] (nothing is out),
    /// [`Error::PublisherFenced`], [`Error::NoBroker`].
    pub fn publish(&mut self, messages: &[AlertMessage], marker: &str, n: u64) -> Result<Outcome> {
        self.open_producer()?;
        let Some(producer) = self.producer.as_ref() else {
            return Ok(Outcome::Unknown);
        };
        match self.transact(producer, messages, marker, n) {
            Ok(()) => Ok(Outcome::Published),
            Err(Failure::Unknown) => {
                tracing::warn!(
                    topic = self.config.topic,
                    n,
                    "no answer to the commit of alerts: the publisher is opened anew, and its marker says whether they are out"
                );
                self.producer = None;
                Ok(Outcome::Unknown)
            }
            Err(Failure::TooLarge { key, bytes }) => {
                // What it had sent has a gap now. A new producer begins anew, and makes the broker roll back.
                self.producer = None;
                let batch_bytes = self.batch_bytes.unwrap_or_else(|| self.config.batch_bytes());
                let was_alone = messages.len() == 1 || bytes >= batch_bytes || batch_bytes == 1;
                if was_alone {
                    return Err(Error::AlertTooLarge { topic: self.config.topic.clone(), key, bytes });
                }
                let all_bytes: usize = messages.iter().map(AlertMessage::bytes).sum();
                self.batch_bytes = Some((batch_bytes.min(all_bytes) / 2).max(1));
                self.publish(messages, marker, n)
            }
            Err(Failure::Fatal(error)) => {
                self.producer = None;
                Err(error)
            }
            Err(Failure::Abort(error)) => {
                if let Err(stuck) = roll_back(producer) {
                    // A new producer of the same id makes the broker roll it back.
                    tracing::debug!(error = %stuck, "the rollback failed; the producer is opened anew");
                    self.producer = None;
                }
                Err(error)
            }
        }
    }

    /// The marker of the last transaction that is out, if this slot ever published.
    ///
    /// Takes the slot over first if in doubt, so that nothing is still open when the marker is read.
    ///
    /// # Errors
    /// [`Error::NoBroker`] or [`Error::Kafka`] if the broker does not answer: ask again.
    pub fn last_marker(&mut self) -> Result<Option<String>> {
        self.open_producer()?;
        let reader = marker_reader(&self.config)?;
        let mut question = TopicPartitionList::new();
        question.add_partition(&self.config.topic, 0);
        let doing = || format!("reading the marker of group `{}`", self.config.marker_group());
        let answer = reader
            .committed_offsets(question, self.config.connect_timeout)
            .map_err(|source| Error::Kafka { doing: doing(), source })?;
        let elements = answer.elements();
        let Some(element) = elements.first() else { return Ok(None) };
        element.error().map_err(|source| Error::Kafka { doing: doing(), source })?;
        match element.offset() {
            Offset::Offset(_) => Ok(Some(element.metadata().to_owned())),
            Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => Ok(None),
        }
    }

    fn open_producer(&mut self) -> Result<()> {
        if self.producer.is_none() {
            self.producer = Some(new_producer(&self.config, self.batch_bytes)?);
        }
        Ok(())
    }

    fn transact(
        &self,
        producer: &BaseProducer<ProducerReports>,
        messages: &[AlertMessage],
        marker: &str,
        n: u64,
    ) -> std::result::Result<(), Failure> {
        let deadline = Instant::now() + self.config.transaction_timeout / 2;
        let reports = producer.client().context();
        // A report of an earlier, rolled-back transaction.
        reports.take_failed_delivery();
        producer.begin_transaction().map_err(|error| self.judge(producer, &error))?;
        self.tell(PublishStep::Begun);
        for message in messages {
            self.enqueue(producer, message, deadline)?;
        }
        while producer.in_flight_count() > 0 && !reports.has_failed_delivery() && Instant::now() < deadline {
            producer.poll(SERVE);
        }
        if let Some(failed) = reports.take_failed_delivery() {
            return Err(self.undelivered(producer, failed));
        }
        if producer.in_flight_count() > 0 {
            return Err(self.rolled_back(producer, &KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)));
        }
        self.tell(PublishStep::Sent);
        let marker = self.marker_list(marker, n).map_err(|error| self.rolled_back(producer, &error))?;
        self.until_settled(producer, deadline, || {
            producer.send_offsets_to_transaction(&marker, &self.group, left(deadline))
        })
        .map_err(|error| match error {
            // Nothing was committed yet, so a missing answer here is no doubt about the whole.
            Failure::Unknown => self.rolled_back(producer, &KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)),
            other => other,
        })?;
        self.tell(PublishStep::Marked);
        self.until_settled(producer, deadline, || producer.commit_transaction(left(deadline)))
    }

    fn tell(&self, step: PublishStep) {
        if let Some(OnPublishStep(on_step)) = &self.config.on_step {
            on_step(step);
        }
    }

    fn enqueue(
        &self,
        producer: &BaseProducer<ProducerReports>,
        message: &AlertMessage,
        deadline: Instant,
    ) -> std::result::Result<(), Failure> {
        let headers = message.record_headers();
        let record = BaseRecord::to(&self.config.topic).key(&message.key).payload(&message.payload).headers(headers);
        enqueue(producer, record, deadline).map_err(|error| match error {
            KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge) => {
                Failure::Abort(Error::AlertTooLarge {
                    topic: self.config.topic.clone(),
                    key: message.key.clone(),
                    bytes: message.payload.len(),
                })
            }
            error => self.not_taken(producer, &error),
        })
    }

    /// Why the client takes no message: mostly because an earlier one was refused, which that one's report tells.
    fn not_taken(&self, producer: &BaseProducer<ProducerReports>, error: &KafkaError) -> Failure {
        let reports = producer.client().context();
        let until = Instant::now() + REPORT_WAIT;
        while producer.in_flight_count() > 0 && !reports.has_failed_delivery() && Instant::now() < until {
            producer.poll(SERVE);
        }
        match reports.take_failed_delivery() {
            Some(failed) => self.undelivered(producer, failed),
            None => self.rolled_back(producer, error),
        }
    }

    fn undelivered(&self, producer: &BaseProducer<ProducerReports>, failed: FailedDelivery) -> Failure {
        if failed.is_too_large() && producer.client().fatal_error().is_none() {
            return Failure::TooLarge { key: failed.key, bytes: failed.bytes };
        }
        self.rolled_back(producer, &failed.error)
    }

    /// Repeats a step of the protocol while the library says that it may be repeated and time is left.
    fn until_settled(
        &self,
        producer: &BaseProducer<ProducerReports>,
        deadline: Instant,
        mut step: impl FnMut() -> rdkafka::error::KafkaResult<()>,
    ) -> std::result::Result<(), Failure> {
        loop {
            match step() {
                Ok(()) => return Ok(()),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && !error.is_fatal() => {
                    if Instant::now() >= deadline {
                        return Err(Failure::Unknown);
                    }
                }
                Err(error) => return Err(self.judge(producer, &error)),
            }
        }
    }

    fn marker_list(&self, marker: &str, n: u64) -> rdkafka::error::KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&self.config.topic, 0);
        element.set_offset(Offset::Offset(i64::try_from(n).unwrap_or(i64::MAX)))?;
        element.set_metadata(marker);
        Ok(list)
    }

    /// A failure before the commit was asked for: nothing is out. Being fenced shows itself first as purged messages,
    /// so the client's own state is asked before the error is believed.
    fn rolled_back(&self, producer: &BaseProducer<ProducerReports>, error: &KafkaError) -> Failure {
        if let Some((code, text)) = producer.client().fatal_error() {
            return Failure::Fatal(fatal(&self.config, Some(code), &text));
        }
        Failure::Abort(Error::TransactionAborted { topic: self.config.topic.clone(), reason: error.to_string() })
    }

    fn judge(&self, producer: &BaseProducer<ProducerReports>, error: &KafkaError) -> Failure {
        match error {
            KafkaError::Transaction(detail) if detail.is_fatal() => {
                Failure::Fatal(fatal(&self.config, error.rdkafka_error_code(), &error.to_string()))
            }
            KafkaError::Transaction(detail) if detail.txn_requires_abort() => self.rolled_back(producer, error),
            // The flush before the commit timed out: the commit was not asked for.
            KafkaError::Flush(_) => self.rolled_back(producer, error),
            _ => Failure::Unknown,
        }
    }
}

/// Rolls the open transaction back. The reports of its messages are served first: the library waits for them inside, and
/// would wait in vain.
fn roll_back(producer: &BaseProducer<ProducerReports>) -> rdkafka::error::KafkaResult<()> {
    let deadline = Instant::now() + ROLLBACK_TIMEOUT;
    producer.purge(PurgeConfig::default().queue());
    while producer.in_flight_count() > 0 && Instant::now() < deadline {
        producer.poll(SERVE);
    }
    producer.abort_transaction(left(deadline))
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100))
}

fn fatal(config: &AlertPublisherConfig, code: Option<RDKafkaErrorCode>, text: &str) -> Error {
    let fenced = matches!(
        code,
        Some(RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch | RDKafkaErrorCode::Fenced)
    );
    if fenced {
        Error::PublisherFenced { transactional_id: config.transactional_id() }
    } else {
        Error::ClientDead { reason: text.to_owned() }
    }
}

/// A consumer that never joins: it names the marker group and reads its offset.
fn marker_reader(config: &AlertPublisherConfig) -> Result<BaseConsumer<SourceContext>> {
    let why = "the marker group follows from job and slot";
    let reserved =
        [Reserved::new("group.id", config.marker_group(), why), Reserved::new("enable.auto.commit", "false", why)];
    let mut properties = config.properties.clone();
    // Belong to the producer half of this publisher, and to the source.
    properties.retain(|name, _| !name.starts_with("transaction") && !is_of_member(name));
    client_config(&config.bootstrap_servers, &[("client.id", "wattline")], &properties, &reserved)?
        .create_with_context(SourceContext::default())
        .map_err(refused_config)
}

fn new_producer(config: &AlertPublisherConfig, batch_bytes: Option<usize>) -> Result<BaseProducer<ProducerReports>> {
    let why = "one transaction per tick depends on it";
    let timeout_ms = config.transaction_timeout.as_millis().to_string();
    let reserved = [
        Reserved::new("transactional.id", config.transactional_id(), "it follows from job and slot"),
        Reserved::new("enable.idempotence", "true", why),
        Reserved::new("transaction.timeout.ms", timeout_ms, "the transaction timeout has a setting of its own"),
    ];
    let defaults =
        [("client.id", "wattline"), ("linger.ms", "0"), ("compression.type", "lz4"), ("partitioner", "murmur2_random")];
    let mut properties = config.properties.clone();
    properties.retain(|name, _| !is_of_member(name));
    if let Some(batch_bytes) = batch_bytes {
        properties.insert(BATCH_SIZE.to_owned(), batch_bytes.to_string());
    }
    let producer: BaseProducer<ProducerReports> =
        client_config(&config.bootstrap_servers, &defaults, &properties, &reserved)?
            .create_with_context(ProducerReports::default())
            .map_err(refused_config)?;
    let deadline = Instant::now() + config.connect_timeout;
    loop {
        match producer.init_transactions(left(deadline)) {
            Ok(()) => return Ok(producer),
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {}
            Err(KafkaError::Transaction(error)) if error.is_fatal() => {
                return Err(fatal(config, Some(error.code()), &error.to_string()));
            }
            Err(error) => {
                producer.poll(Duration::ZERO);
                let reason = producer.client().context().last_trouble().unwrap_or_else(|| error.to_string());
                return Err(Error::NoBroker {
                    bootstrap_servers: config.bootstrap_servers.clone(),
                    timeout: config.connect_timeout,
                    reason,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::embedded::EmbeddedBroker;

    fn alert(key: &str) -> AlertMessage {
        AlertMessage {
            key: key.to_owned(),
            headers: vec![("ce_id".to_owned(), format!("{key}:1"))],
            payload: br#"{"state":"open"}"#.to_vec(),
        }
    }

    fn broker() -> EmbeddedBroker {
        let broker = EmbeddedBroker::start().expect("embedded broker");
        broker.create_topic("alerts", 2).expect("topic");
        broker
    }

    #[test]
    fn publishes_transactions_one_after_another() {
        let broker = broker();
        let config = AlertPublisherConfig::new(broker.bootstrap_servers(), "alerts", "job", "0");
        let mut publisher = AlertPublisher::connect(config).expect("publisher");
        for n in 0..3 {
            let outcome = publisher.publish(&[alert("a"), alert("b")], &format!("job/i/c/{n}"), n).expect("published");
            assert_eq!(outcome, Outcome::Published);
        }
        publisher.publish(&[], "job/i/c/3", 3).expect("a tick without alerts still moves the marker");
        publisher.last_marker().expect("the marker can be asked for");
    }

    #[test]
    fn a_missing_topic_and_a_missing_broker_say_what_to_do() {
        let broker = broker();
        let config = AlertPublisherConfig::new(broker.bootstrap_servers(), "nowhere", "job", "0");
        let error = AlertPublisher::connect(config).expect_err("no such topic").to_string();
        assert!(error.contains("`nowhere` does not exist") && error.contains("--create --topic nowhere"), "{error}");
        let mut config = AlertPublisherConfig::new("127.0.0.1:1", "alerts", "job", "0");
        config.connect_timeout = Duration::from_millis(500);
        let error = AlertPublisher::connect(config).expect_err("no broker").to_string();
        assert!(error.contains("no broker answered at `127.0.0.1:1` within 0.5 s"), "{error}");
    }

    #[test]
    fn a_refused_message_rolls_the_transaction_back_and_the_next_one_succeeds() {
        let broker = broker();
        let mut config = AlertPublisherConfig::new(broker.bootstrap_servers(), "alerts", "job", "0");
        config.properties.insert("message.max.bytes".to_owned(), "2000".to_owned());
        let mut publisher = AlertPublisher::connect(config).expect("publisher");
        let mut large = alert("a");
        large.payload = vec![b'x'; 5000];
        let error = publisher.publish(&[alert("b"), large], "job/i/c/0", 0).expect_err("too large");
        assert!(matches!(error, Error::AlertTooLarge { bytes: 5000, .. }), "{error}");
        assert_eq!(publisher.publish(&[alert("b")], "job/i/c/0", 0).expect("published"), Outcome::Published);
    }

    #[test]
    fn a_message_that_the_broker_refuses_is_named_and_the_next_transaction_succeeds() {
        let broker = broker();
        let config = AlertPublisherConfig::new(broker.bootstrap_servers(), "alerts", "job", "0");
        let mut publisher = AlertPublisher::connect(config).expect("publisher");
        let refuse = || {
            let refusal = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE];
            broker.cluster().expect("cluster").request_errors(RDKafkaApiKey::Produce, &refusal);
        };
        refuse();
        let error = publisher.publish(&[alert("a")], "job/i/c/0", 0).expect_err("too large");
        let Error::AlertTooLarge { key, bytes, .. } = error else { panic!("{error}") };
        assert_eq!((key.as_str(), bytes), ("a", alert("a").payload.len()));
        assert_eq!(publisher.publish(&[alert("b")], "job/i/c/0", 0).expect("published"), Outcome::Published);
        // A batch that is too large only as a whole.
        refuse();
        let outcome = publisher.publish(&[alert("a"), alert("a")], "job/i/c/1", 1);
        assert_eq!(outcome.expect("published in two batches"), Outcome::Published);
        assert_eq!(publisher.batch_bytes, Some(alert("a").bytes()), "half of the two");
    }

    #[test]
    fn a_fencing_answer_is_told_apart() {
        let broker = broker();
        let config = AlertPublisherConfig::new(broker.bootstrap_servers(), "alerts", "job", "0");
        let mut publisher = AlertPublisher::connect(config).expect("publisher");
        broker
            .cluster()
            .expect("cluster")
            .request_errors(RDKafkaApiKey::EndTxn, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_PRODUCER_FENCED]);
        let error = publisher.publish(&[alert("a")], "job/i/c/0", 0).expect_err("fenced");
        assert!(matches!(error, Error::PublisherFenced { .. }), "{error}");
    }

    #[test]
    fn a_commit_without_an_answer_is_in_doubt_and_the_publisher_recovers() {
        let broker = broker();
        let mut config = AlertPublisherConfig::new(broker.bootstrap_servers(), "alerts", "job", "0");
        config.transaction_timeout = Duration::from_millis(1500);
        let mut publisher = AlertPublisher::connect(config).expect("publisher");
        publisher.publish(&[alert("a")], "job/i/c/0", 0).expect("published");
        let silence = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS; 1000];
        broker.cluster().expect("cluster").request_errors(RDKafkaApiKey::EndTxn, &silence);
        assert_eq!(publisher.publish(&[alert("b")], "job/i/c/1", 1).expect("no error"), Outcome::Unknown);
        broker.cluster().expect("cluster").clear_request_errors(RDKafkaApiKey::EndTxn);
        publisher.last_marker().expect("the marker can be asked for");
        assert_eq!(publisher.publish(&[alert("b")], "job/i/c/1", 1).expect("published"), Outcome::Published);
    }
}
