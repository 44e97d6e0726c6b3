//! Where librdkafka calls back: rebalances, errors and log lines.
//!
//! A callback runs inside a `poll` of the thread that drives the client. It does what the group protocol
//! demands at once (acknowledge) and leaves the rest in an inbox that the same thread empties after the poll.
//! Partitions are acknowledged but not fetched: fetching begins only when the owner names a position.

use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{NoCustomPartitioner, ProducerContext};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use wattline_core::record::LaneId;

use crate::source::Trouble;

/// Complaints kept between two polls; more than this say nothing new.
const TROUBLES_MAX: usize = 16;

/// What a callback leaves for the polling thread.
#[derive(Debug)]
pub(crate) enum Notice {
    Assigned(Vec<LaneId>),
    Revoked(Vec<LaneId>),
    Trouble(Trouble),
}

/// The callbacks of a consumer.
#[derive(Debug, Default)]
pub(crate) struct SourceContext {
    inbox: Mutex<Vec<Notice>>,
}

impl SourceContext {
    fn inbox(&self) -> MutexGuard<'_, Vec<Notice>> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Empties the inbox, in the order of arrival.
    pub(crate) fn take(&self) -> Vec<Notice> {
        std::mem::take(&mut *self.inbox())
    }

    fn complain(&self, trouble: Trouble) {
        let mut inbox = self.inbox();
        let known = inbox.iter().any(|notice| matches!(notice, Notice::Trouble(old) if *old == trouble));
        if !known && inbox.len() < TROUBLES_MAX {
            inbox.push(Notice::Trouble(trouble));
        }
    }

    fn acknowledge_assignment(consumer: &BaseConsumer<Self>) -> KafkaResult<()> {
        let nothing = TopicPartitionList::new();
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(&nothing),
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.assign(&nothing),
        }
    }

    fn acknowledge_revocation(consumer: &BaseConsumer<Self>, revoked: &TopicPartitionList) -> KafkaResult<()> {
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => {
                let fetched = consumer.assignment()?;
                let mut both = TopicPartitionList::new();
                for gone in revoked.elements() {
                    if fetched.find_partition(gone.topic(), gone.partition()).is_some() {
                        both.add_partition(gone.topic(), gone.partition());
                    }
                }
                consumer.incremental_unassign(&both)
            }
            RebalanceProtocol::Eager | RebalanceProtocol::None => consumer.unassign(),
        }
    }
}

fn lanes_of(list: &TopicPartitionList) -> Vec<LaneId> {
    list.elements().iter().map(|element| LaneId::new(element.topic(), element.partition())).collect()
}

/// Whether a code means that no broker at all is reachable.
fn is_all_down(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown)
}

fn trouble(error: &KafkaError, reason: &str) -> Trouble {
    let message = match error.rdkafka_error_code() {
        Some(code) if reason.is_empty() => code.to_string(),
        Some(_) | None => reason.to_owned(),
    };
    Trouble { message, all_brokers_down: is_all_down(error) }
}

pub(crate) fn forward_log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{line}");
        }
        // Its errors are mostly connection attempts that it repeats by itself.
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{line}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::info!(target: "librdkafka", facility, "{line}"),
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{line}"),
    }
}

impl ClientContext for SourceContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        forward_log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition arrives here too; it is an event of its lane and no trouble.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            self.complain(trouble(&error, reason));
        }
    }
}

impl ConsumerContext for SourceContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let lanes = lanes_of(partitions);
        let (acknowledged, notice) = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            (Self::acknowledge_assignment(consumer), Notice::Assigned(lanes))
        } else {
            (Self::acknowledge_revocation(consumer, partitions), Notice::Revoked(lanes))
        };
        self.inbox().push(notice);
        if let Err(error) = acknowledged {
            self.complain(Trouble {
                message: format!("the rebalance could not be acknowledged: {error}"),
                all_brokers_down: false,
            });
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            // Advisory offsets: the manifests hold the truth, tools merely show an older lag.
            tracing::debug!(%error, "an advisory offset commit failed");
        }
    }
}

/// A message that was not delivered.
#[derive(Debug)]
pub(crate) struct FailedDelivery {
    pub(crate) error: KafkaError,
    /// Its key, as text.
    pub(crate) key: String,
    /// Size of its payload.
    pub(crate) bytes: usize,
}

impl FailedDelivery {
    /// Whether the client gave it up because of something else that had failed.
    fn is_consequence(&self) -> bool {
        let code = self.error.rdkafka_error_code();
        matches!(code, Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight))
    }

    /// Whether the broker found it, or the batch that it was in, too large.
    pub(crate) fn is_too_large(&self) -> bool {
        let code = self.error.rdkafka_error_code();
        matches!(code, Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge))
    }

    /// Whether it says more than what is known. What was purged may be told before what it was purged for; of a batch that was
    /// refused the largest message is the one that may be meant.
    fn says_more_than(&self, known: &Self) -> bool {
        if self.is_too_large() && known.is_too_large() {
            self.bytes > known.bytes
        } else {
            known.is_consequence() && !self.is_consequence()
        }
    }
}

/// The callbacks of a producer: the first failed delivery and the last complaint.
#[derive(Debug, Default)]
pub(crate) struct ProducerReports {
    state: Mutex<Reports>,
}

#[derive(Debug, Default)]
struct Reports {
    failed_delivery: Option<FailedDelivery>,
    last_trouble: Option<Trouble>,
}

impl ProducerReports {
    fn state(&self) -> MutexGuard<'_, Reports> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first delivery that failed since the last call; one that failed by itself rather than as a consequence, and the
    /// largest one of those that were too large.
    pub(crate) fn take_failed_delivery(&self) -> Option<FailedDelivery> {
        self.state().failed_delivery.take()
    }

    /// Whether a delivery failed by itself since it was last taken.
    pub(crate) fn has_failed_delivery(&self) -> bool {
        self.state().failed_delivery.as_ref().is_some_and(|failed| !failed.is_consequence())
    }

    /// The last complaint of the library.
    pub(crate) fn last_trouble(&self) -> Option<String> {
        self.state().last_trouble.as_ref().map(|trouble| trouble.message.clone())
    }
}

impl ClientContext for ProducerReports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        forward_log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.state().last_trouble = Some(trouble(&error, reason));
    }
}

impl ProducerContext<NoCustomPartitioner> for ProducerReports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        let Err((error, message)) = result else { return };
        let failed = FailedDelivery {
            error: error.clone(),
            key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
            bytes: message.payload().map_or(0, <[u8]>::len),
        };
        let mut state = self.state();
        if state.failed_delivery.as_ref().is_none_or(|known| failed.says_more_than(known)) {
            state.failed_delivery = Some(failed);
        }
    }
}
